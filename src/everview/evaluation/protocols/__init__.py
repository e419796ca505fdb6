"""Protocols: how predictions of a clip are compared with its truth, one module per kind of task."""
