"""Steps, checkpoints, logs; one process or several."""
