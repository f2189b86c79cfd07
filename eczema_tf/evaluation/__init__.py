"""Honest figures: cases from rows, metrics, intervals, thresholds, the table and the plots. Numpy and pandas only, no TensorFlow."""
