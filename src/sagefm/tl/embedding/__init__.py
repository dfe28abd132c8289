"""Embed spots, one slide or hundreds, and explain an embedding."""

from sagefm._many import Done
from sagefm.tl.embedding._embed import embed
from sagefm.tl.embedding._explain import explain
from sagefm.tl.embedding._jobs import Source
from sagefm.tl.embedding._many import embed_many
from sagefm.tl.embedding._reference import embed_by_model

__all__ = ["Done", "Source", "embed", "embed_by_model", "embed_many", "explain"]
