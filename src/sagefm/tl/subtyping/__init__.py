"""Predict subtypes of patients from their slides."""

from sagefm.tl.subtyping._slides import clean_label, label_of_slide
from sagefm.tl.subtyping._subtype import Subtypes, subtype

__all__ = ["Subtypes", "clean_label", "label_of_slide", "subtype"]
