"""TensorFlow Serving's REST contract on this machine: batching, limits, metrics."""
