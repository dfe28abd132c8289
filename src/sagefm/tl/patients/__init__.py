"""Slides of patients: what predictions of subtypes and of outcomes share."""

from sagefm.tl.patients._pooling import Readout, SpotFeatures, drawn_spots, mean, pool, quantiles
from sagefm.tl.patients._slides import PatientSlide, Slides, SlideSource, SummarizedSlide, summarize

__all__ = [
    "PatientSlide",
    "Readout",
    "SlideSource",
    "Slides",
    "SpotFeatures",
    "SummarizedSlide",
    "drawn_spots",
    "mean",
    "pool",
    "quantiles",
    "summarize",
]
