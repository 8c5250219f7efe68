"""Pseudo-targets: how they are drawn, which are good enough, and where they are kept."""
