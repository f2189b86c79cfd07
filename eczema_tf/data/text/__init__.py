"""Texts: cleaning, tokens, and where each token is in what the user wrote."""
