"""A network of twenty lines, and results as the pipeline would hand them on."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from everview.frames.frame import Frame
from everview.geometry.pixel_map import PixelMap
from everview.geometry.prediction import Prediction
from everview.outputs import dense
from everview.outputs.manifest import new_manifest
from everview.pipeline.results import FrameResult

SIZE = (28, 42)


class FakeStream:
    """Depends on everything it has seen, so that a wrong resume shows."""

    def __init__(self, past=0.0, num_frames=0, *, bytes_per_frame=1000):
        self.past, self.num_frames, self.bytes_per_frame = past, num_frames, bytes_per_frame

    def step(self, frame):
        self.past = 0.9 * self.past + float(frame.image.mean())
        self.num_frames += 1
        return prediction(self.num_frames - 1, self.past, frame.image, frame.pixel_map)

    def report(self):
        return SimpleNamespace(
            state_bytes=self.bytes_per_frame * self.num_frames,
            taken_bytes=self.bytes_per_frame * self.num_frames,
            fixed_bytes=0,
            is_bounded=False,
            shortages=0,
            policy="full",
        )

    def save(self, path):
        path.write_text(json.dumps([self.past, self.num_frames]))


class FakeNetwork(nn.Module):
    """What `record` needs of a network."""

    input_size, info, device, dtype = 42, None, torch.device("cpu"), torch.float32

    def __init__(self, attention="causal"):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.config = SimpleNamespace(attention=attention, to_dict=lambda: {"size": "fake"})

    def stream(self, memory="auto"):
        return FakeStream()

    def resume(self, path):
        return FakeStream(*json.loads(path.read_text()))

    def forward(self, frames):
        predictions = [
            prediction(i, float(f.image.mean()), f.image, None) for i, f in enumerate(frames)
        ]
        names = ("pose_encoding", "depth", "depth_confidence", "points_confidence")
        together = {n: torch.cat([getattr(p, n) for p in predictions], dim=1) for n in names}
        iterations = torch.cat([p.pose_encoding_iterations for p in predictions], dim=2)
        return Prediction(pose_encoding_iterations=iterations, network_size=SIZE, **together)


def prediction(number, level, image, pixel_map):
    height, width = image.shape[1:]
    encoding = torch.tensor([0.1 * number, level, -0.02 * number, 0, 0.1 * number, 0, 1, 0.8, 1.1])
    depth = 1 + image.mean(0) + 0.1 * level
    confidence = 1 + torch.linspace(0, 3, height * width).view(height, width)
    return Prediction(
        pose_encoding=encoding[None, None],
        pose_encoding_iterations=encoding[None, None, None],
        network_size=(height, width),
        depth=depth[None, None],
        depth_confidence=confidence[None, None],
        points_confidence=1 + confidence[None, None],
        pixel_map=pixel_map,
    )


@dataclass
class Results:
    """Makes results: number i is always the same."""

    size: tuple[int, int] = SIZE

    def __call__(self, count, *, skip=()):
        return [self.one(i, is_skipped=i in skip) for i in range(count)]

    def one(self, number, *, is_skipped=False):
        generator = torch.Generator().manual_seed(number)
        image = torch.rand(3, *self.size, generator=generator)
        pixel_map = PixelMap(
            original_size=(2 * self.size[0], 2 * self.size[1]),
            network_size=self.size,
            scale=(0.5, 0.5),
        )
        frame = Frame(
            image=image,
            timestamp=number / 10,
            index=number,
            original_size=pixel_map.original_size,
            pixel_map=pixel_map,
            name=f"{number}.png",
            flags=("corrupt: bad bytes",) if is_skipped else (),
        )
        predicted = None if is_skipped else prediction(number, 0.3, image, pixel_map).numpy()
        return FrameResult(frame=frame, prediction=predicted, latency=0.01, memory=number * 100)


@pytest.fixture
def results():
    return Results()


@pytest.fixture
def manifest():
    return new_manifest(
        source={"kind": "images", "path": "/nowhere"},
        model={"name": "fake", "fingerprint": "f00d"},
        settings={"every": 1},
    )


@pytest.fixture
def short_shards(monkeypatch):
    """Shards of four frames, so that few frames fill some."""
    monkeypatch.setattr(dense, "FRAMES_PER_SHARD", 4)


@pytest.fixture
def network():
    return FakeNetwork()


@pytest.fixture
def make_network():
    return FakeNetwork


@pytest.fixture
def image_folder(tmp_path):
    """Ten small images; number 4 is black, number 6 is no image."""
    folder = tmp_path / "images"
    folder.mkdir()
    generator = torch.Generator().manual_seed(5)
    for number in range(10):
        low = torch.rand(4, 6, 3, generator=generator) * (number != 4)
        picture = Image.fromarray((low.numpy() * 255).astype("uint8")).resize((60, 40))
        picture.save(folder / f"{number}.png")
    (folder / "6.png").write_bytes(b"no image")
    return folder


class Silent:
    """An observer that remembers what it was told."""

    def __init__(self):
        self.new, self.replayed, self.phases, self.expected = 0, 0, [], None

    def begin(self, num_frames):
        self.expected = num_frames

    def frame(self, result, *, is_new):
        if is_new:
            self.new += 1
        else:
            self.replayed += 1

    def phase(self, name):
        self.phases.append(name)


@pytest.fixture
def observer():
    return Silent()
