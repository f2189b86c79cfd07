"""Explanations: where in the photo and in the text the evidence lies, and whether that is true."""
