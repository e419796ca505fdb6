"""Is this training set what its reader takes it for? Measures and findings before a long run."""
