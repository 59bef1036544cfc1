"""Training of the generator: configuration, batches, objective, checkpoints and the loop."""
