"""Benchmark folders that the world writes, and a predictor that knows the world."""

import re
from dataclasses import dataclass
from functools import cache

import torch

from everview.evaluation.benchmarks.clip import EvalClip
from everview.frames.frame import Frame
from everview.geometry.cameras import pose_encoding_from_camera
from everview.geometry.pixel_map import PixelMap
from everview.geometry.prediction import Prediction
from everview.geometry.rotations import invert_rigid
from everview.world.clip import Options, WorldSequence, sequence
from everview.world.layouts.benchmark_sets import RENDERED_FOV

SIZE = (42, 56)
FRAMES = {"benchmark-co3d": 50, "benchmark-long3d": 21}
LAYOUT_OF = {
    "7scenes": "benchmark-7scenes",
    "nrgbd": "benchmark-nrgbd",
    "eth3d": "benchmark-eth3d",
    "dtu": "benchmark-dtu",
    "sintel-depth": "benchmark-sintel",
    "bonn-depth": "benchmark-bonn",
    "kitti-depth": "benchmark-kitti",
    "nyu-depth": "benchmark-nyu",
    "sintel-video": "benchmark-sintel",
    "bonn-video": "benchmark-bonn",
    "kitti-video": "benchmark-kitti",
    "co3d-pose": "benchmark-co3d",
    "sintel-pose": "benchmark-sintel",
    "tum-pose": "benchmark-tum",
    "scannet-pose": "benchmark-scannet",
    "long3d": "benchmark-long3d",
}


@cache
def world_clips(layout: str) -> list[WorldSequence]:
    """Two rooms in which nothing moves."""
    fov = RENDERED_FOV.get(layout)
    return [
        sequence(
            seed, FRAMES.get(layout, 6), size=SIZE, fov=(fov, fov) if fov else (55.0, 75.0),
            kind="room", speed=1.5, options=Options(motion="hand-held", moving=0.0),
        )
        for seed in (31, 32)
    ]  # fmt: skip


@dataclass
class WorldPredictor:
    """Says what is true, in another unit, or wrong in a known way."""

    sequences: list[WorldSequence]
    names: list[str]
    first: int = 0
    by_position: bool = False
    unit: float = 1.0
    mode: str = "streaming"
    change: object = None

    def facts(self):
        return {"model": {"name": "truth"}, "mode": self.mode, "memory": None, "resize": "none",
                "dtype": "float32", "device": "cpu"}  # fmt: skip

    def frame(self, clip: EvalClip, index: int) -> Frame:
        same = PixelMap(original_size=SIZE, network_size=SIZE, scale=(1.0, 1.0))
        return Frame(image=torch.zeros(3, *SIZE), timestamp=0.0, index=index, original_size=SIZE,
                     pixel_map=same, name=clip.frames[index])  # fmt: skip

    def start(self, clip: EvalClip, state):
        return _Session(self, clip)

    def locate(self, clip: EvalClip, index: int) -> tuple[WorldSequence, int]:
        if len(self.names) == 1 and len(self.sequences) > 1:  # all frames in one clip
            frames = len(self.sequences[0].depth)
            return self.sequences[index // frames], index % frames
        world = self.sequences[self.names.index(clip.name)]
        number = index if self.by_position else int(re.findall(r"\d+", clip.frames[index])[-1])
        return world, number if self.by_position else number - self.first


class _Session:
    num_frames = 0

    def __init__(self, predictor, clip):
        self.predictor, self.clip = predictor, clip
        self.first = None

    def step(self, frame: Frame) -> Prediction:
        predictor = self.predictor
        world, i = predictor.locate(self.clip, frame.index)
        pose = world.world_from_camera[i].double()
        self.first = pose if self.first is None else self.first
        pose = invert_rigid(self.first) @ pose
        points = world.points[i].double() @ invert_rigid(self.first)[:3, :3].T
        points = points + invert_rigid(self.first)[:3, 3]
        depth = world.depth[i].double()
        pose[:3, 3] /= predictor.unit
        values = {"pose": pose, "depth": depth / predictor.unit, "points": points / predictor.unit}
        if predictor.change is not None:
            predictor.change(values, frame.index, len(self.clip.frames))
        encoding = pose_encoding_from_camera(
            invert_rigid(values["pose"]), world.intrinsics[i].double(), SIZE
        )[None, None]
        return Prediction(
            pose_encoding=encoding, pose_encoding_iterations=encoding[None], network_size=SIZE,
            depth=values["depth"][None, None], points=values["points"][None, None],
            pixel_map=frame.pixel_map,
        )  # fmt: skip

    def save(self, path):
        path.write_bytes(b"")
