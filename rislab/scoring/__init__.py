"""Scores of given masks, under every convention."""
