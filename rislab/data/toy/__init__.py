"""The embedded world: scenes that need language, written in the official file formats."""
