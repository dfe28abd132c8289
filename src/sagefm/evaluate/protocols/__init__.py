"""Protocols: one readout for every method."""
