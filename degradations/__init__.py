"""Known damage for good images: the published blind degradation, and a camera's noise.

Everything works on RGB float32 (B, 3, H, W) in [0, 1] on any device; every random number comes from a
`torch.Generator` that belongs to one image. The package stands alone: it imports nothing of `adapt`, and what it
refuses, it refuses with a ValueError of one line.
"""
