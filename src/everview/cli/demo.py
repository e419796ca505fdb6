"""`everview demo`: the bundled model on a real clip, and on a world whose truth is known."""

import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from rich.console import Console

    from everview.model.network import Network
    from everview.world.clip import WorldSequence

WORLD_SEED, WORLD_FRAMES, WORLD_SPEED = 11_000_005, 40, 3.0
"""A room that no training has seen (their seeds lie above 2^48), chosen for its look before there
was a model; how much of it is walked, and how fast."""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Run a bundled real clip and a procedural world with known truth; takes less than a minute.

    Writes DIR/office and DIR/world, two recordings, and prints how far the second one is from the
    truth, beside trivial guesses. A second call goes on where the first one was stopped; with
    another model it records anew.
    """

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = Path("demo")
    """Folder for both recordings."""
    model: Annotated[str, tyro.conf.arg(metavar="MODEL")] = "mini"
    """Any causal model, see `everview run --help`."""
    device: Annotated[str, tyro.conf.arg(metavar="DEVICE")] = "auto"
    """cpu, cuda, cuda:1, mps; auto takes the fastest there is."""

    def run(self) -> int:
        """Return the exit code."""
        from importlib.resources import as_file, files

        from rich.console import Console

        from everview.cli.run import STOPPED
        from everview.pipeline.shortage import memory_errors
        from everview.weights.load import load

        console = Console(highlight=False, soft_wrap=True)
        with memory_errors(f"for the model {self.model}: take a smaller one such as mini"):
            network = load(self.model, device=self.device)
        clip = files("everview") / "assets" / "clips" / "office.mp4"
        with as_file(clip) as path:
            console.print("1. a real clip: a walk through an office")
            if not _record(console, network, str(path), self.out / "office"):
                return STOPPED
        console.print("2. a procedural room that the model has never seen")
        truth = _world(network)
        source = self.out / "world_source"
        is_new = _write_world(truth, source)
        if not _record(console, network, str(source), self.out / "world", is_new=is_new):
            return STOPPED
        _print_scores(console, truth, self.out / "world")
        console.print(
            f"Look at {self.out / 'office' / 'preview.mp4'} and "
            f"{self.out / 'world' / 'preview.mp4'}; open points.ply beside them in any viewer of "
            "point clouds. Your own video: everview run VIDEO"
        )
        return 0


def _record(
    console: "Console", network: "Network", source: str, folder: Path, *, is_new: bool = False
) -> bool:
    """Record, or go on with what an earlier call began; a recording that is out of date goes.

    Args:
        is_new: the source is not what it was at the earlier call.

    Returns:
        Whether it came to its end.

    Raises:
        ConfigError: if the folder holds anything but a recording of this source.
    """
    from everview.outputs.manifest import OtherRunError
    from everview.outputs.session import is_recording_of

    is_ours = is_recording_of(folder, Path(source).name)
    if is_new and is_ours:
        shutil.rmtree(folder)
    try:
        return _go_on(console, network, source, folder)
    except OtherRunError:
        if not is_ours:
            raise
    console.print(f"{folder} was made with other weights or settings: recording it anew")
    shutil.rmtree(folder)
    return _go_on(console, network, source, folder)


def _go_on(console: "Console", network: "Network", source: str, folder: Path) -> bool:
    from everview.cli.progress import Bar
    from everview.outputs.session import record
    from everview.pipeline.config import RunConfig

    with Bar(console) as observer:
        outcome = record(network, source, folder, RunConfig(), observer=observer, resume=True)
        observer.end(folder, outcome)
    return outcome.status == "finished"


def _world(network: "Network") -> "WorldSequence":
    from everview.evaluation.procedural import native_size
    from everview.world.clip import sequence

    return sequence(WORLD_SEED, WORLD_FRAMES, size=native_size(network), speed=WORLD_SPEED)


def _write_world(truth: "WorldSequence", folder: Path) -> bool:
    """The images as PNG, which loses nothing, and the true path; whether anything has changed."""
    from everview.outputs.trajectory import tum_line

    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    files = {images / f"{i:04d}.png": png for i, png in enumerate(_pictures(truth))}
    poses = truth.world_from_camera.double().numpy()
    lines = [tum_line(float(number), pose) for number, pose in enumerate(poses)]
    files[folder / "trajectory_true.tum"] = "".join(lines).encode()
    left_over = set(images.glob("[0-9][0-9][0-9][0-9].png")) - files.keys()
    for path in left_over:  # of a longer walk
        path.unlink()
    changed = [p for p, content in files.items() if not p.exists() or p.read_bytes() != content]
    for path in changed:
        path.write_bytes(files[path])
    return bool(left_over or changed)


def _pictures(truth: "WorldSequence") -> Iterator[bytes]:
    """The content of one PNG file per frame."""
    from PIL import Image

    for pixels in (truth.images * 255).round().byte().permute(0, 2, 3, 1).numpy():  # s H W 3
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="png")
        yield file.getvalue()


def _print_scores(console: "Console", truth: "WorldSequence", folder: Path) -> None:
    """Measure what lies in the recording against the truth."""
    from rich.table import Table

    from everview.evaluation.baselines import measure_habits
    from everview.evaluation.sequence_scores import HIGHER_IS_BETTER, METRICS, score_sequence
    from everview.outputs.recording import Recording

    recording = Recording.open(folder)
    predictions = [recording.prediction(row) for row in range(len(recording))]
    scores = score_sequence(predictions, truth, habits=measure_habits(speed=WORLD_SPEED))
    shown = {name: meaning for name, meaning in METRICS.items() if name in scores}
    table = Table("score", "measured", "best guess", "which guess")
    for name in shown:
        guesses = {key: value for key, value in scores.items() if key.startswith(f"{name}/")}
        pick = max if name in HIGHER_IS_BETTER else min
        best = pick(guesses, key=lambda key: guesses[key])
        table.add_row(
            name,
            f"{scores[name]:.3f}",
            f"{guesses[best]:.3f}",
            best.partition("/")[2].replace("_", " "),
        )
    console.print("Measured against the truth, beside the best of some trivial guesses:")
    console.print(table)
    for name, meaning in shown.items():
        more = " (more is better)" if name in HIGHER_IS_BETTER else ""
        console.print(f"{name}: {meaning}{more}", markup=False)
    console.print("One room only; for the mean over many: everview eval procedural")
