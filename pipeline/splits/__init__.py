"""Which clips train, validate and test a head, with groups kept whole."""
