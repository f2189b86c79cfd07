"""Explanations: where in photo and text the evidence lies, and whether the explanation is true."""
