"""What a user does to a slide with a model."""

from sagefm.tl.domains import domains
from sagefm.tl.embed import embed

__all__ = ["domains", "embed"]
