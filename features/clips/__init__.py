"""Which clips a video folder holds, who belongs together, and what changed."""
