"""Perceptual distances: the pack's own network of LPIPS form, and lpips itself where its weights are at hand."""
