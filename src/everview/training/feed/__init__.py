"""Where the clips of a training run come from."""
