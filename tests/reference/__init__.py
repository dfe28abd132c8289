"""The oracle: the published way, slow and literal."""
