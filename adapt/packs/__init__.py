"""Packs: sets of weights that belong together, with sources, licences and digests."""
