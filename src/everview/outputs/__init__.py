"""The way out: recordings on disk, point clouds, trajectories, previews."""
