"""From procedural clips to weights: losses, batches, the loop, recipes."""
