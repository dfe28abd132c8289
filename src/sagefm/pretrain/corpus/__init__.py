"""Many aligned slides on disk.

A corpus is a folder: ``corpus.json`` with the vocabulary and the size of a neighborhood, and
``slides/NAME.zarr``, an AnnData for every slide. There is no index: the table is collected from the
slides, so that a slide is in the corpus as soon as its folder has its name.
"""

from sagefm.pretrain.corpus.building import Built, build
from sagefm.pretrain.corpus.reading import Corpus

__all__ = ["Built", "Corpus", "build"]
