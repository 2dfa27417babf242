"""How good a head is, how sure that is, and which of two is better."""
