"""Turns data sets into manifests, one module each."""
