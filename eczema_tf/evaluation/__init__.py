"""Numbers only: cases, metrics with intervals, thresholds, and what `metrics.json` contains."""
