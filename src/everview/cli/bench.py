"""`everview bench`: speed, written as JSON with the machine's description."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from everview.errors import ConfigError

if TYPE_CHECKING:
    from everview.model.config import Config
    from everview.model.network import Network


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure speed on this machine and write it as JSON."""

    what: Annotated[Literal["latency", "memory"], tyro.conf.Positional]
    """latency: seconds per frame of a stream, and where they go. memory: what each policy costs
    beside attention, and a cache that is concatenated for every frame, in one layer."""
    model: str = "mini"
    """Anything `everview.load` takes, or a preset (streamvggt-1b, tiny) with random weights."""
    size: tuple[int, int] | None = None
    """Height and width of the frames in pixels; the model's width and 7:10 if left out."""
    frames: int = 30
    """Measured frames; the past grows by one with each."""
    warm_up: int = 3
    """Frames before the measurement."""
    memory: str = "full"
    """Memory policy; of `latency`."""
    past: tuple[int, ...] = (50, 100, 200)
    """Frames' worth of tokens that are remembered; of `memory`."""
    precision: str = "auto"
    """float32, bfloat16 or float16; auto is float32 on a CPU and bfloat16 on CUDA."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes the fastest."""
    threads: int | None = None
    """Threads of the CPU; all cores if left out."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """JSON file to write; standard output if left out."""

    def run(self) -> int:
        """Return the exit code."""
        import torch

        self._check_counts()
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.what == "memory":
            return self._memory()
        from everview.evaluation.latency import LatencySettings, measure_latency

        network = self._network()
        size = self._size(network.config)
        settings = LatencySettings(
            size=size, frames=self.frames, warm_up=self.warm_up, memory=self.memory
        )
        result = {"model": self.model, **measure_latency(network, settings)}
        if not self._write(result):
            return 0
        seconds = result["seconds_per_frame"]["median"]
        share = result["share_of_matrix_product_peak"]
        print(f"{self.model}: {seconds:.4g} s per frame, {share:.0%} of the peak -> {self.out}")
        return 0

    def _memory(self) -> int:
        from everview.evaluation.memory_speed import MemorySpeedSettings, measure_memory_speed
        from everview.memory import POLICIES
        from everview.model.presets import presets
        from everview.pipeline.plan import layer_shape
        from everview.weights.devices import pick_device, pick_dtype

        config = presets[self.model] if self.model in presets else self._network().config
        device = pick_device(self.device)
        size = self._size(config)
        shape = layer_shape(config, size, pick_dtype(self.precision, device), device)
        in_codes = ["full:bits=8", "key_diversity:bits=8", "key_diversity:bits=4"]
        settings = MemorySpeedSettings(policies=[*POLICIES, *in_codes], frames=self.past)
        result = measure_memory_speed(shape, settings)
        if self._write({"model": self.model, "size": list(size), **result}):
            for row in result["rows"]:
                print(
                    f"{row['policy']:24} {row['frames']:4} frames  {1000 * row['seconds']:8.2f} ms"
                    f"  {row['update_share']:+.0%} over attention  {row['speed_up']:.2f} x"
                )
        return 0

    def _write(self, result: dict[str, Any]) -> bool:
        """Write the result; whether it went to a file."""
        text = json.dumps(result, indent=1) + "\n"
        if self.out is None:
            sys.stdout.write(text)
            return False
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(text)
        return True

    def _check_counts(self) -> None:
        """Refuse what cannot be measured."""
        counts = {
            "--frames": self.frames, "--past": min(self.past, default=0), "--threads": self.threads
        }  # fmt: skip
        for option, count in counts.items():
            if count is not None and count < 1:
                raise ConfigError(f"{option} must be 1 or more, got {count}")
        if self.warm_up < 0:
            raise ConfigError(f"--warm-up must be 0 or more, got {self.warm_up}")

    def _size(self, config: "Config") -> tuple[int, int]:
        patch, side = config.patch_size, config.patch_embed.img_size
        if self.size is None:
            return patch * round(0.7 * side / patch), side
        whole = [patch * max(1, round(edge / patch)) for edge in self.size]
        if whole != list(self.size):
            raise ConfigError(
                f"--size {self.size[0]} {self.size[1]}: both must be multiples of {patch}, such as "
                f"{whole[0]} {whole[1]}"
            )
        return self.size

    def _network(self) -> "Network":
        from everview.model.network import build
        from everview.model.presets import presets
        from everview.weights.catalog import bundled_names
        from everview.weights.devices import pick_device, pick_dtype
        from everview.weights.load import load

        if self.model in presets and self.model not in bundled_names():
            device = pick_device(self.device)
            network = build(presets[self.model], seed=0).to(device)
            return network.set_precision(pick_dtype(self.precision, device))
        return load(self.model, device=self.device, precision=self.precision)
