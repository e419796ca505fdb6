"""Training in less memory: what is frozen, updates of low rank, activations computed again."""
