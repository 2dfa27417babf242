"""Stage 1: a folder of videos becomes a store of per-frame embeddings."""
