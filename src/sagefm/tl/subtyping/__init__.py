"""Predict subtypes of patients from their slides."""

from sagefm.tl.subtyping._slides import label_of_slide
from sagefm.tl.subtyping._subtype import Subtypes, subtype

__all__ = ["Subtypes", "label_of_slide", "subtype"]
