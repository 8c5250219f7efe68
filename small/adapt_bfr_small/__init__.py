"""The pack `small` of adapt: weights and their card, `pack.yaml`. It holds no code."""
