"""Numbers in, numbers out: rotations, cameras, pixel grids, predictions. No files, no state."""
