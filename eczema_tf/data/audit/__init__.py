"""The leakage audit: duplicates, near-duplicates, and texts that name the diagnosis."""
