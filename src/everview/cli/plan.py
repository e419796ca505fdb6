"""`everview plan`: what a run would take, and what fits."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from everview.cli.run import StreamOptions, check_source

if TYPE_CHECKING:
    from everview.pipeline.plan import Plan as Found


@dataclass(frozen=True, kw_only=True)
class Plan(StreamOptions):
    """Say what a run would take before it begins: memory at its peak, and seconds per frame.

    Loads the model and rehearses two steps at the source's size. With --memory-limit and
    --memory auto, chooses what fits; `everview run` with the same options does the same.

    Exit codes: 0 it fits, 2 the call is wrong, 3 the input cannot be used, 4 it does not fit.
    """

    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    """JSON file to write beside what is printed."""

    def run(self) -> int:
        """Return the exit code."""
        from everview.outputs.session import recording_bytes, source_size
        from everview.pipeline.plan import make_plan
        from everview.weights.load import load

        config = self.config()
        check_source(self.source)
        network = load(self.model, device=self.device, precision=self.precision)
        size, num_frames = source_size(network, self.source, config)
        plan = make_plan(
            network, size, memory=config.memory, limit=config.memory_limit,
            num_frames=num_frames, extra_bytes=recording_bytes(size, num_frames),
        )  # fmt: skip
        sys.stdout.write(_as_text(plan, num_frames))
        if self.out is not None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.out.write_text(json.dumps(plan.as_dict(), indent=1) + "\n")
        return 0


def _as_text(plan: "Found", num_frames: int | None) -> str:
    from everview.pipeline.run import bytes_as_text

    def shown(num_bytes: int | None) -> str:
        return "grows with every frame" if num_bytes is None else bytes_as_text(num_bytes)

    kept = "all" if plan.tokens is None else f"{plan.tokens:,}"
    kind = "as the network makes them" if plan.bits is None else f"{plan.bits} bits"
    rows = {
        "network sees": f"{plan.size[0]}x{plan.size[1]} pixels, {plan.frame_tokens} tokens a frame",
        "memory": f"{plan.memory}  ({kept} tokens per layer, {kind})",
        "process and model": shown(plan.base_bytes),
        "a step, for a moment": shown(plan.step_bytes),
        "decoder, disk, cloud": shown(plan.extra_bytes),
        "the stream's past": shown(plan.written_bytes) + _unused(plan),
        "peak": shown(plan.peak_bytes),
        "time per frame": f"{plan.seconds_per_frame:.3g} s",
    }
    if plan.limit is not None:
        rows["limit"] = shown(plan.limit)
    if num_frames is not None:
        total = num_frames * plan.seconds_per_frame
        rows["the whole source"] = f"{num_frames} frames, about {total:.0f} s"
    return "".join(f"{name:22} {value}\n" for name, value in rows.items())


def _unused(plan: "Found") -> str:
    """What a short source never fills of the storage that is reserved."""
    from everview.pipeline.run import bytes_as_text

    if plan.state_bytes == plan.written_bytes or plan.state_bytes is None:
        return ""
    return f"  (of {bytes_as_text(plan.state_bytes)} reserved)"
