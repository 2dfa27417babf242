"""Embeddings on disk: written whole, read fast, damage seen."""
