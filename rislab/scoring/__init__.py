"""Scores of masks that anybody made, under every convention."""
