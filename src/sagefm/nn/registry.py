"""The networks by name, and how each reads a slide."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sagefm.nn.context import Context, ContextReading
from sagefm.nn.joined import Joined
from sagefm.nn.network import Network, Reading
from sagefm.nn.published import Published, PublishedReading

NETWORKS: dict[str, type[Network]] = {"published": Published, "context": Context}


def build(name: str, n_genes: int, widths: Sequence[int]) -> Network:
    """Make a network by name, with fresh weights from torch's global random state."""
    return NETWORKS[name](n_genes, widths)


def read(
    network: Network,
    expression: csr_matrix,
    measured: NDArray[np.bool_],
    slides: NDArray[np.int64],
) -> Reading:
    """Let a network read a slide, or several.

    Parameters
    ----------
    expression
        Spots × genes, log1p counts, float32.
    measured
        Genes: which of them the slide has.
    slides
        The slide of each spot, by number; neighborhoods never cross slides.
    """
    if isinstance(network, Published):  # it looks no further than neighborhoods
        return PublishedReading(network, expression)
    if not isinstance(network, Context):
        raise TypeError(f"no way to read a slide with a {type(network).__name__}")
    numbers, codes = np.unique(slides, return_inverse=True)
    each = [
        ContextReading(
            network, expression[codes == code] if len(numbers) > 1 else expression, measured
        )
        for code in range(len(numbers))
    ]
    return each[0] if len(each) == 1 else Joined(each, codes)
