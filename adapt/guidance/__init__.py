"""Guidance terms: what keeps the person while the prior cleans the image."""
