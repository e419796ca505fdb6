"""`everview quantize`: a smaller and faster copy of a model."""

import json
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from everview.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from everview.model.network import Network

REPORT = "report.json"
"""Beside the model: what was measured while it was made."""
NO_CALIBRATION = "none"


@dataclass(frozen=True, kw_only=True)
class Quantize:
    """Turn the projections of a model into integers; writes a folder that every verb can load.

    Encoder, aggregator and camera head (at least 8 bits) are quantized; dense heads and tracker
    keep their floats. CLIPS should look like what the model will see, and never be what it is
    evaluated on. Prints size, speed and error beside the float model; report.json has it all.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Bundled name, Hugging Face id, or path of a checkpoint of floats."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")]
    """Folder to write; new or empty."""
    scheme: Annotated[str, tyro.conf.arg(metavar="SCHEME")] = "w8a8"
    """w8a8, w4a8, w4a4, w8a16 or w4a16: bits of weights and activations; fp8: 8-bit floats."""
    calibration: Annotated[str, tyro.conf.arg(metavar="CLIPS")] = "procedural"
    """A video, a folder of images, a folder of such clips, procedural, or none."""
    clips: int = 12
    """Calibration clips, 4 or more."""
    frames: int = 8
    """Of each clip."""
    candidates: int | None = None
    """Read so many clips and choose among them: unusual ones are left out, different ones taken."""
    method: Annotated[str | None, tyro.conf.arg(metavar="METHOD")] = None
    """How, see docs/quantization.md; everview, or without calibration the rotation alone."""
    keep: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATTERN=SCHEME")] = ()
    """Other bits for layers that fit a pattern, such as "*.mlp.fc1=w8a8", or "=float"."""
    held_out: int = 4
    """Clips for the comparison with the float model, from the same source."""
    require_real: tyro.conf.FlagCreatePairsOff[bool] = False
    """Refuse what this device can only simulate."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps."""
    seed: int = 0
    """Of the choice of clips."""

    def run(self) -> int:
        """Return the exit code."""
        from everview.quantization import quantize
        from everview.quantization.methods import pick_method
        from everview.quantization.spec import parse_scheme
        from everview.weights.load import load
        from everview.weights.save import save

        keep = self._keep()
        parse_scheme(self.scheme)  # wrong words are told before a large model is loaded
        pick_method(self.method or "everview")
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise ConfigError(f"{self.out} is not empty; name a new folder with -o")
        if self.held_out < 1:
            raise ConfigError(f"--held-out must be 1 or more; got {self.held_out}")
        network = load(self.model, device=self.device, precision="float32")
        calibration, held_out = self._clips(network)
        before = _measure(network, held_out)
        made = quantize(
            network, self.scheme, calibration, method=self.method, keep=keep, in_place=True,
            require_real=self.require_real, progress=_tell,
        )  # fmt: skip
        folder = save(made, self.out, dtype=_half(), info=self._info(network))
        found = self._report(made, held_out, before, folder)
        (folder / REPORT).write_text(json.dumps(found, indent=1) + "\n")
        print("\n".join(_lines(found, folder)))
        return 0

    def _keep(self) -> dict[str, str]:
        pairs = [text.rpartition("=") for text in self.keep]
        for pattern, _, word in pairs:
            if not pattern or not word:
                raise ConfigError('--keep takes PATTERN=SCHEME, such as "*.mlp.fc1=w8a8"')
        return {pattern: word for pattern, _, word in pairs}

    def _clips(self, network: "Network") -> tuple["list[Tensor] | None", "list[Tensor]"]:
        """For calibration, and others for the comparison."""
        from everview.quantization.clips import calibration_clips, choose_clips

        if self.calibration == NO_CALIBRATION:
            return None, calibration_clips(
                network, "procedural", clips=self.held_out, frames=self.frames
            )
        if self.candidates is not None and self.candidates < self.clips:
            raise ConfigError(
                f"--candidates must be at least --clips ({self.clips}); got {self.candidates}"
            )
        pool = self.candidates or self.clips
        found = calibration_clips(
            network, self.calibration, clips=pool + self.held_out, frames=self.frames,
            seed=self.seed,
        )  # fmt: skip
        clips = found[:pool]
        if self.candidates is not None:
            clips = choose_clips(network, clips, self.clips, seed=self.seed, progress=_tell)
        return clips, found[pool:]

    def _info(self, network: "Network") -> dict[str, Any]:
        return {
            "made_from": network.info.name,
            "made_by": "everview quantize",
            "license": network.info.license,
            "calibration": self.calibration,
        }

    def _report(
        self, made: "Network", held_out: "list[Tensor]", before: dict[str, Any], folder: Path
    ) -> dict[str, Any]:
        from everview.evaluation.machine import code_version, describe
        from everview.quantization.report import report

        file = folder / "weights.safetensors"
        parameters = made.info.num_parameters
        return {
            "format": "everview quantization report",
            "model": made.info.name,
            "code": code_version(),
            "machine": describe(made.device),
            "file_bytes": {
                "float32": 4 * parameters, "bfloat16": 2 * parameters,
                "source": made.info.num_bytes, "quantized": file.stat().st_size,
            },
            "peak_memory_bytes": _peak_bytes(),
            **report(
                made, before["predictions"], held_out,
                exact_ms=before["ms"], exact_bytes=before["bytes"],
            ),
        }  # fmt: skip


def _measure(network: "Network", clips: "list[Tensor]") -> dict[str, Any]:
    """The float network on clips, before it is changed."""
    from everview.quantization.report import resident_bytes, time_parts

    return {
        "predictions": [network(clip) for clip in clips],
        "ms": time_parts(network, clips[0]),
        "bytes": resident_bytes(network),
    }


def _half() -> "torch.dtype":
    import torch

    return torch.bfloat16


def _tell(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{what} {done}/{total}\x1b[K", end="\n" if done == total else "", file=sys.stderr)


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _lines(found: dict[str, Any], folder: Path) -> list[str]:
    size, resident, ms = found["file_bytes"], found["resident_bytes"], found["ms_per_frame"]
    error = found["against_float"]
    lines = [
        f"{found['model']} as {found['quantization']['scheme']} -> {folder}",
        f"file       {size['quantized'] / 1e6:,.1f} MB (float32 {size['float32'] / 1e6:,.1f}, "
        f"bfloat16 {size['bfloat16'] / 1e6:,.1f})",
        f"in memory  {resident['quantized'] / 1e6:,.1f} MB (float {resident['float'] / 1e6:,.1f})",
        f"per frame  {ms['quantized']['all']:.1f} ms (float {ms['float']['all']:.1f}), of which "
        f"aggregator {ms['quantized']['aggregator']:.1f} ({ms['float']['aggregator']:.1f})",
        f"error      mean of {error['clips']} held-out clips against the float model: "
        + ", ".join(f"{name} {value:.2g}" for name, value in error["mean"].items()),
    ]
    for name, used in found["kernels"].items():
        simulated = "" if used["is_real"] else " SIMULATED"
        lines.append(f"kernel     {name}{simulated}: {used['layers']} layers; {used['kernel']}")
    for layer in found["worst_layers"]:
        lines.append(f"layer      {layer['name']}: {layer['error']:.1%} off ({layer['bits']})")
    return lines
