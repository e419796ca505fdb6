import functools
import gc

import psutil
import pytest
import torch
from PIL import Image

from everview.outputs import preview, recorder
from everview.outputs.fusion import FusionConfig
from everview.outputs.session import record
from everview.pipeline.config import RunConfig


class Watching:
    """An observer that notes the process's memory every hundred frames."""

    def __init__(self):
        self.count, self.megabytes = 0, []

    def begin(self, num_frames):
        pass

    def frame(self, result, *, is_new):
        self.count += 1
        if self.count % 100 == 0:
            gc.collect()
            self.megabytes.append(psutil.Process().memory_info().rss / 1e6)

    def phase(self, name):
        pass


@pytest.mark.slow
def test_host_memory_does_not_grow_with_the_length(tmp_path, network, monkeypatch):
    # the cloud may grow to its bound; here it reaches it within the first hundred frames
    small = functools.partial(FusionConfig, max_points=20_000)
    monkeypatch.setattr(recorder, "FusionConfig", small)
    monkeypatch.setattr(preview, "MAX_FRAMES", 10)
    images = tmp_path / "images"
    images.mkdir()
    picture = Image.fromarray((torch.rand(120, 160, 3) * 255).byte().numpy())
    picture.save(images / "0000.png")
    for number in range(1, 1200):
        (images / f"{number:04d}.png").hardlink_to(images / "0000.png")
    watching = Watching()
    record(network, str(images), tmp_path / "out", RunConfig(size=140), observer=watching)
    # 100 more frames of 112 x 140 hold 8 MB of maps; forgetting one map per frame would show
    early, late = max(watching.megabytes[2:5]), min(watching.megabytes[-3:])
    assert late - early < 8, watching.megabytes
