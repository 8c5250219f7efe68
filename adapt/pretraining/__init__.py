"""Pre-training of the networks a pack holds: the diffusion prior, the restorer, the perceptual network."""
