"""Procedural rooms with exact depth, poses, intrinsics, points and tracks."""

from everview.world.clip import WorldSequence, sequence, training_seed

__all__ = ["WorldSequence", "sequence", "training_seed"]
