"""Embeddings out of the store, for other programs."""
