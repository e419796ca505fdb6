"""From a batch to one number to minimise."""
