"""Many heads on the same splits, side by side, ranked."""
