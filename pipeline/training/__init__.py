"""Training one head, and keeping it as a run."""
