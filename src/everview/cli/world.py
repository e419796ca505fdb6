"""`everview world`: procedural clips with exact truth, written as recordings or as data sets."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    import torch

    from everview.outputs.recorder import Recorder
    from everview.world.clip import WorldSequence, WorldView

CHUNK = 32
"""Frames that are rendered together; a clip of any length takes no more memory."""
RECORDING = "recording"
TRACKED = 64
"""Points of the first frame whose tracks are written."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Write procedural clips with exact depth, poses, tracks and masks of what moves.

    Each clip becomes a recording as `run` writes it, with the truth in place of predictions, the
    images as PNG (so that it can be given to `run`), and truth.npz: `moving` (frames, height,
    width), `queries` (points, 2) in the first frame, `tracks` (frames, points, 2) and `visible`.
    One clip goes to the folder itself, several to folders named after their seeds.
    """

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder to write; new or empty."""
    seed: int = 0
    """Number of the first clip; the same number gives the same clip."""
    count: int = 1
    """Clips, with this seed and the following ones."""
    frames: int = 64
    """Of each clip."""
    size: tuple[int, int] = (252, 336)
    """Height and width in pixels."""
    kind: str = "any"
    """any, room, corridor, street or terrain."""
    motion: str = "any"
    """any, hand-held, orbit, rotate, stop-and-go, walk, drive or loop (back to the start)."""
    speed: float = 1.0
    """Motion between frames; 1 is like video sampled at 3 to 10 Hz."""
    noise: float = 0.01
    """Image noise, share of full scale."""
    moving: float = 0.25
    """Share of clips in which something moves by itself."""
    layout: str = RECORDING
    """`recording`, the layout of a training set, such as scannet or sequences, or that of a
    benchmark, such as benchmark-sintel."""
    device: str = "cpu"
    """Where to render: cpu, cuda, cuda:1."""
    preview: bool = True
    """Also write preview.mp4, preview.png into recordings."""

    def run(self) -> int:
        """Return the exit code."""
        from everview.errors import ConfigError
        from everview.weights.devices import pick_device
        from everview.world.layouts.registry import LAYOUTS

        if self.count < 1 or self.frames < 1:
            raise ConfigError(
                f"--count and --frames must be 1 or more; got {self.count}, {self.frames}"
            )
        if self.layout != RECORDING and self.layout not in LAYOUTS:
            known = ", ".join((RECORDING, *LAYOUTS))
            raise ConfigError(f"layout {self.layout!r} is unknown; known: {known}")
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise ConfigError(f"{self.out} is not empty; name a new folder with -o")
        pick_device(self.device)
        seeds = range(self.seed, self.seed + self.count)
        if self.layout == RECORDING:
            for seed in seeds:
                self._record(seed, self.out if self.count == 1 else self.out / f"{seed:08d}")
            return 0
        LAYOUTS[self.layout](self.out, _Rendered(self, seeds))
        print(f"{self.count} clips in the layout of {self.layout} -> {self.out}")
        return 0

    def _view(self, seed: int) -> "WorldView":
        from everview.world.clip import Options, WorldView
        from everview.world.layouts.benchmark_sets import RENDERED_FOV

        angle = RENDERED_FOV.get(self.layout)
        options = Options(motion=self.motion, moving=self.moving, device=self.device)
        return WorldView(
            seed, size=self.size, fov=(angle, angle) if angle else (45.0, 90.0),
            speed=self.speed, noise=self.noise, kind=self.kind, options=options,
        )  # fmt: skip

    def _record(self, seed: int, folder: Path) -> None:
        from everview.outputs.fusion import FusionConfig
        from everview.outputs.preview import write_preview
        from everview.outputs.recorder import Recorder
        from everview.outputs.recording import Recording

        view = self._view(seed)
        fusion = FusionConfig(confidence_quantile=0.0)
        recorder = Recorder.create(folder, self._manifest(seed, view.kind), fusion)
        status: tuple[str, str | None] = ("failed", None)
        try:
            moving = self._write_frames(view, recorder)
            status = ("finished", None)
        except KeyboardInterrupt:
            status = ("stopped", "by the user")
            raise
        finally:
            recorder.close(*status)
        _write_truth(view, folder, moving)
        if self.preview:
            write_preview(Recording.open(folder))
        print(f"{view.kind}, seed {seed}: {self.frames} frames -> {folder}")

    def _write_frames(self, view: "WorldView", recorder: "Recorder") -> list["torch.Tensor"]:
        """All frames to the recording, and their pictures; returns the masks of what moves."""
        from everview.world.layouts.files import write_picture
        from everview.world.movers import STEP_SECONDS

        pictures = recorder.folder / "images"
        pictures.mkdir()
        moving = []
        for start in range(0, self.frames, CHUNK):
            clip = view.frames(start, min(start + CHUNK, self.frames))
            moving.append(clip.moving.cpu())
            for i, image in enumerate(clip.images.cpu()):
                number = start + i
                path = pictures / f"{number:06d}.png"
                write_picture(path, image)
                timestamp = number * self.speed * STEP_SECONDS
                recorder.write(_result(clip, i, timestamp, path.name))
        return moving

    def _manifest(self, seed: int, kind: str) -> dict[str, Any]:
        from dataclasses import asdict

        from everview import __version__
        from everview.outputs.manifest import new_manifest

        settings = {name: str(v) if isinstance(v, Path) else v for name, v in asdict(self).items()}
        settings["size"] = list(self.size)
        truth = {"name": "truth", "fingerprint": f"everview.world {__version__}"}
        source = {"kind": "world", "path": f"{kind}, seed {seed}"}
        manifest = new_manifest(source=source, model=truth, settings=settings)
        manifest["units"] = {**manifest["units"], "length": "metres"}
        return manifest


class _Rendered(Sequence["WorldSequence"]):
    """Clips that are rendered when they are asked for: a set may be larger than memory."""

    def __init__(self, world: World, seeds: range) -> None:
        self._world, self._seeds = world, seeds

    def __len__(self) -> int:
        return len(self._seeds)

    def __getitem__(self, number: Any) -> Any:  # noqa: ANN401  -- index or slice, as in Sequence
        if isinstance(number, slice):
            return _Rendered(self._world, self._seeds[number])
        return self._world._view(self._seeds[number]).frames(0, self._world.frames)


def _result(clip: "WorldSequence", i: int, timestamp: float, name: str) -> Any:  # noqa: ANN401
    """One frame as the recorder takes it: the truth in place of a prediction."""
    from everview.frames.frame import Frame
    from everview.geometry.cameras import pose_encoding_from_camera
    from everview.geometry.pixel_map import PixelMap
    from everview.geometry.prediction import Prediction
    from everview.geometry.rotations import invert_rigid
    from everview.pipeline.results import FrameResult

    size = (clip.depth.shape[1], clip.depth.shape[2])
    camera_from_world = invert_rigid(clip.world_from_camera[i])
    encoding = pose_encoding_from_camera(camera_from_world, clip.intrinsics[i], size)[None, None]
    same = PixelMap(original_size=size, network_size=size, scale=(1.0, 1.0))
    prediction = Prediction(
        pose_encoding=encoding,
        pose_encoding_iterations=encoding[None],
        network_size=size,
        depth=clip.depth[None, i : i + 1],
        pixel_map=same,
    )
    frame = Frame(
        image=clip.images[i].cpu(), timestamp=timestamp, index=clip.start + i,
        original_size=size, pixel_map=same, name=name,
    )  # fmt: skip
    return FrameResult(frame=frame, prediction=prediction.numpy())


def _write_truth(view: "WorldView", folder: Path, moving: list["torch.Tensor"]) -> None:
    """Masks of what moves, and tracks of points of the first frame."""
    import torch

    from everview.world.layouts.files import write_arrays

    masks, queries = torch.cat(moving), view.queries(TRACKED)
    tracks, visible = view.follow(queries, len(masks))
    write_arrays(
        folder / "truth.npz", moving=masks.numpy(), queries=queries.numpy(),
        tracks=tracks.cpu().numpy(), visible=visible.cpu().numpy(),
    )  # fmt: skip
