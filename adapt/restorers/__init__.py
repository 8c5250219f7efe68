"""Restorers: a damaged photo in, a clean one out, in one pass."""
