"""Trained heads in folders, and what they say of new videos."""
