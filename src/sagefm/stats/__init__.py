"""Statistics on arrays, without AnnData."""
