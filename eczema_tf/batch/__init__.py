"""Batch scoring of a manifest on Spark."""
