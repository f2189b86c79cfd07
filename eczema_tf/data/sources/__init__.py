"""Data sets, one module each: what comes from others, turned into a manifest."""
