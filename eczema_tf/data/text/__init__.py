"""Texts: cleaning, tokens, and where each token stands in what the user wrote."""
