"""Procedural places with exact depth, poses, intrinsics, points, tracks and masks."""

from everview.world.clip import Options, WorldSequence, sequence, training_seed
from everview.world.develop import NO_EFFECTS, Effects

__all__ = ["NO_EFFECTS", "Effects", "Options", "WorldSequence", "sequence", "training_seed"]
