"""Metrics of classes, clusters and the mixing of slides."""
