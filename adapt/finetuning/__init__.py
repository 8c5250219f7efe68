"""Fine-tuning of a restorer on photos and their pseudo-targets."""
