"""Training: optimizers, the loop, and the run folder it leaves behind."""
