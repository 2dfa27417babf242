"""Heads: what turns the frames of a clip into probabilities of classes."""
