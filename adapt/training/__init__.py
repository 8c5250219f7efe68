"""What every training shares: the run folder, the loop, EMA, rates, losses, discriminators."""
