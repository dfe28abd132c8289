"""How results are measured: the same readout for every method."""
