"""What a quantized network costs and gives beside the float one."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from everview.geometry.prediction import Prediction
from everview.geometry.rotations import invert_rigid
from everview.model.network import Network
from everview.quantization.linear import QuantizedLinear
from everview.quantization.network import kernels_used

PARTS = ("aggregator.patch_embed", "aggregator", "camera_head", "depth_head", "point_head")
"""What is timed; the aggregator contains the encoder."""
WORST_LAYERS = 5


def resident_bytes(network: nn.Module) -> int:
    """Bytes of all parameters and buffers, pre-packed weights of kernels included."""
    tensors = [*network.parameters(), *network.buffers()]
    packed = sum(
        m.in_features * m.out_features
        for m in network.modules()
        if isinstance(m, QuantizedLinear) and m.levels is None
    )
    return packed + sum(t.numel() * t.element_size() for t in tensors)


def time_parts(
    network: Network, images: Float[Tensor, "s 3 H W"], *, repeats: int = 3
) -> dict[str, float]:
    """Milliseconds per frame of the network's parts and of all, median of some runs."""
    seconds: dict[str, list[float]] = {"all": []}
    handles = []
    for name in PARTS:
        module = dict(network.named_modules()).get(name)
        if module is not None:
            seconds[name] = []
            handles += _timed(module, seconds[name], network.device)
    try:
        for turn in range(repeats + 1):
            start = time.perf_counter()
            network(images)
            _finish(network.device)
            seconds["all"].append(time.perf_counter() - start)
            if turn == 0:
                for found in seconds.values():  # the first run warms caches
                    found.clear()
    finally:
        for handle in handles:
            handle.remove()
    frames = len(images)
    return {
        name: round(1e3 * statistics.median(found) / frames, 3)
        for name, found in seconds.items()
        if found
    }


def _timed(module: nn.Module, seconds: list[float], device: torch.device) -> list[Any]:
    begun: list[float] = []

    def before(_module: nn.Module, _inputs: Any) -> None:  # noqa: ANN401
        _finish(device)
        begun.append(time.perf_counter())

    def after(_module: nn.Module, _inputs: Any, _output: Any) -> None:  # noqa: ANN401
        _finish(device)
        seconds.append(time.perf_counter() - begun.pop())

    return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compare(ours: Prediction, exact: Prediction) -> dict[str, float]:
    """How far predictions of one clip are from those of the float network.

    Returns:
        `rotation_degrees`: mean over frames; `translation`: mean distance of camera centres, as a
        share of the float path's spread; `depth_abs_rel`: mean |difference| / depth; `points`: mean
        distance over mean length; what a network does not predict is left out.
    """
    found, true = (torch.as_tensor(p.world_from_camera)[0] for p in (ours, exact))
    relative = invert_rigid(true) @ _square(found)
    trace = relative[:, :3, :3].diagonal(dim1=-2, dim2=-1).sum(-1)
    centres = true[:, :3, 3]
    spread = (centres - centres.mean(0)).norm(dim=-1).mean()
    result = {
        "rotation_degrees": float(torch.rad2deg(((trace - 1) / 2).clamp(-1, 1).acos()).mean()),
        "translation": float((found[:, :3, 3] - centres).norm(dim=-1).mean() / spread),
    }
    if exact.depth is not None:
        depth, other = torch.as_tensor(exact.depth), torch.as_tensor(ours.depth)
        result["depth_abs_rel"] = float(((other - depth).abs() / depth).mean())
    if exact.points is not None:
        points, other = torch.as_tensor(exact.points), torch.as_tensor(ours.points)
        result["points"] = float((other - points).norm(dim=-1).mean() / points.norm(dim=-1).mean())
    return result


def _square(rigid: Tensor) -> Tensor:
    """Four rows, whether three or four were given."""
    last = rigid.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(rigid), 1, 4)
    return torch.cat([rigid[:, :3], last], dim=1)


def worst_layers(network: Network) -> list[dict[str, Any]]:
    """The layers with the largest error of their output on calibration clips, worst first."""
    layers = [
        {"name": name, "error": facts["error"], "bits": "fp8" if facts.get("is_float8") else
         f"w{facts['weight_bits']}a{facts['activation_bits']}"}
        for name, facts in network.quantization.layers.items()
        if facts.get("error") is not None
    ]  # fmt: skip
    return sorted(layers, key=lambda layer: -layer["error"])[:WORST_LAYERS]


def report(
    made: Network,
    exact_predictions: Sequence[Prediction],
    clips: Sequence[Float[Tensor, "s 3 H W"]],
    *,
    exact_ms: dict[str, float],
    exact_bytes: int,
    repeats: int = 3,
) -> dict[str, Any]:
    """Float beside quantized, as plain values; what only the caller knows (files) is not here.

    Args:
        exact_predictions: of the float network, for each clip.
        clips: that calibration has not seen.
        exact_ms: `time_parts` of the float network.
        exact_bytes: `resident_bytes` of the float network.
    """
    errors = [
        compare(made(clip), exact) for clip, exact in zip(clips, exact_predictions, strict=True)
    ]
    return {
        "quantization": {k: v for k, v in made.quantization.to_dict().items() if k != "layers"},
        "kernels": kernels_used(made),
        "resident_bytes": {"float": exact_bytes, "quantized": resident_bytes(made)},
        "ms_per_frame": {
            "float": exact_ms,
            "quantized": time_parts(made, clips[0], repeats=repeats),
        },
        "against_float": {
            "clips": len(clips),
            "mean": _over(errors, statistics.fmean),
            "worst": _over(errors, max),
        },
        "worst_layers": worst_layers(made),
        "layer_errors": {n: f.get("error") for n, f in made.quantization.layers.items()},
    }


def _over(
    errors: Sequence[dict[str, float]], rule: Callable[[list[float]], float]
) -> dict[str, float]:
    return {name: rule([e[name] for e in errors]) for name in errors[0]}
