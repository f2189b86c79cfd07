"""From files to batches: the manifest, splits, photos, embeddings, preprocessing and pipelines."""
