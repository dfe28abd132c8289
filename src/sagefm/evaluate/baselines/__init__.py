"""Methods without a trained network, with which models are compared."""
