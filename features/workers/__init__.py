"""Processes that decode clips, each of which may die without harm."""
