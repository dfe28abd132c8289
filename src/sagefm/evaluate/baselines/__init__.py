"""What a model has to beat: methods without a trained network."""
