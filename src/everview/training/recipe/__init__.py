"""What a training run does: settings, their files, and the recipes that have names."""
