"""Statistics on arrays: below everything that counts, plots or predicts. No AnnData."""
