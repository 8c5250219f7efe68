"""What the blur of a photo says: how strong it is, where the sampler should start, and how hard to guide it."""
