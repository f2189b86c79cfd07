"""Data sets of others, one module each, turned into manifests."""
