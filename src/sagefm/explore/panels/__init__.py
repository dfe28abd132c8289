"""The panels of the page, each with its own controls and what they do."""
