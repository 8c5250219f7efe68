"""What a run decides without originals: whether the adapted model is better than the one it started from."""
