"""What a user does to a slide with a model."""

from sagefm.tl._jobs import Source
from sagefm.tl.domains import domains
from sagefm.tl.embed import embed
from sagefm.tl.many import Done, embed_many

__all__ = ["Done", "Source", "domains", "embed", "embed_many"]
