"""Stage 2: a store becomes trained, compared and exported heads."""
