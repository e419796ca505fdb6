"""Post-training quantization of a whole network."""

import copy
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from everview.errors import ConfigError
from everview.model.network import Network
from everview.quantization.calibration import (
    Progress,
    activation_maxima,
    check_clips,
    input_products,
    listening,
    run_tokens,
    silent,
)
from everview.quantization.clips import calibration_clips
from everview.quantization.folding import PreparedLinear, fold
from everview.quantization.hadamard import Rotation, block_of
from everview.quantization.learning import (
    Call,
    LearnableLinear,
    learn_block,
    make_learnable,
    record,
    replay,
)
from everview.quantization.linear import QuantizedLinear
from everview.quantization.methods import Method, pick_method
from everview.quantization.sites import (
    Site,
    choose_specs,
    find_sites,
    linear_of,
    replace_linear,
)
from everview.quantization.smoothing import plan_transform
from everview.quantization.spec import LinearSpec, parse_scheme

FORMAT = 1
"""Version of what `Quantization` says, in a model folder's `config.json`."""
UNCALIBRATED = Method(order="rotate", rounding="nearest")
"""What is done where there are no clips: seconds for the full-size network."""
USUAL_CLIPS, USUAL_FRAMES = 12, 8
"""Of a calibration that is read from files."""
PRODUCTS_BYTES = 1 << 30
"""Memory of the second-order rule for products of inputs."""


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How a network was quantized: its `quantization`, and part of its `config.json`."""

    scheme: str
    """Such as w4a8."""
    method: Mapping[str, Any]
    """Settings of the method, by name."""
    layers: Mapping[str, Mapping[str, Any]]
    """Name of each quantized layer -> `weight_bits`, `activation_bits`, `group`, `block` of the
    online rotation and, where it was measured, the relative `error` of its output."""
    num_clips: int
    """Clips of the calibration."""
    keep: Mapping[str, str] = field(default_factory=dict)
    """Patterns of layers with other bits."""
    format: int = FORMAT
    """Version."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def quantize(
    model: Network,
    scheme: str,
    calibration: Sequence[Any] | str | Path | None = None,
    *,
    method: str | Method | None = None,
    keep: Mapping[str, str] | None = None,
    in_place: bool = False,
    require_real: bool = False,
    progress: Progress = silent,
) -> Network:
    """Turn the projections of encoder, aggregator and camera head into integers.

    Dense heads and tracker stay as they are; the camera head has at least 8 bits.

    Args:
        model: VGGT or StreamVGGT, in floating point.
        scheme: `w8a8`, `w4a8`, `w4a4`, `w8a16`, `w4a16`, `fp8`.
        calibration: clips s 3 H W of one shape, RGB in [0, 1], from where the model will be used
            (never from an evaluation); or a video, a folder or `procedural`, of which some are
            read, see `clips.calibration_clips`; None: methods that need none.
        method: a `Method` or one of `METHODS`; by default `everview`, without calibration the
            rotation alone.
        keep: pattern of layer names -> `float` or another scheme.
        in_place: change the model instead of a copy: halves the memory.
        require_real: refuse layers that this device can only simulate.
        progress: is told what is done, steps done, steps in all.

    Returns:
        The quantized network, in evaluation mode; its `quantization` says how.

    Raises:
        ConfigError: if scheme, method, clips or pattern are impossible, or a layer cannot be
            quantized; names the layer, clip or device.
        InputError: if clips or activations are not finite; names the layer and clip.
    """
    if model.quantization is not None:
        raise ConfigError(
            f"this model is quantized already ({model.quantization.scheme}); start from floats"
        )
    spec = parse_scheme(scheme)
    settings = _settings(method, has_clips=calibration is not None)
    network = model if in_place else copy.deepcopy(model)
    network.eval().requires_grad_(False)
    if isinstance(calibration, str | Path):
        calibration = calibration_clips(
            network, str(calibration), clips=USUAL_CLIPS, frames=USUAL_FRAMES
        )
    clips = [] if calibration is None else check_clips(network, calibration)
    sites = find_sites(network)
    specs = choose_specs(network, sites, spec, keep or {})
    sites = [site for site in sites if site.name in specs]
    with torch.no_grad():
        _prepare(network, sites, clips, settings, progress)
        errors = _round(network, sites, specs, clips, settings, progress)
    network.quantization = Quantization(
        scheme=spec.name,
        method=asdict(settings),
        layers=_facts(network, sites, errors),
        num_clips=len(clips),
        keep=dict(keep or {}),
    )
    return execute(network, require_real=require_real)


def execute(
    network: Network, arithmetic: str | None = None, *, require_real: bool = False
) -> Network:
    """Pick the arithmetic of every quantized layer for the device on which it is.

    Args:
        arithmetic: name of the one to take where it is possible, else the fastest; `reference` is
            possible everywhere.
        require_real: refuse layers that can only be simulated.

    Raises:
        ConfigError: if a layer can only be simulated, or none can use the arithmetic; says why.
    """
    refused: ConfigError | None = None
    num_taken = 0
    for name, layer in quantized_layers(network).items():
        try:
            layer.execute_with(arithmetic, require_real=require_real)
            num_taken += 1
        except ConfigError as error:
            if arithmetic is None:
                raise ConfigError(f"{name}: {error}") from error
            refused = error
            layer.execute_with(require_real=require_real)
    if refused is not None and num_taken == 0:
        raise refused
    return network


def quantized_layers(network: nn.Module) -> dict[str, QuantizedLinear]:
    """Name -> layer, of all quantized ones."""
    return {n: m for n, m in network.named_modules() if isinstance(m, QuantizedLinear)}


def set_output_dtype(network: Network, dtype: torch.dtype) -> None:
    """Let the aggregator's layers answer in a floating-point type, in which attention then runs.

    The camera head stays in float32, as it does without quantization.
    """
    for layer in quantized_layers(network.aggregator).values():
        layer.dtype = dtype


def kernels_used(network: nn.Module) -> dict[str, dict[str, Any]]:
    """Arithmetic -> kernel, whether it is real, the number of layers and of weights."""
    found: dict[str, dict[str, Any]] = {}
    for layer in quantized_layers(network).values():
        used = layer.arithmetic
        entry = found.setdefault(
            used.name, {"kernel": used.kernel, "is_real": used.is_real, "layers": 0, "weights": 0}
        )
        entry["layers"] += 1
        entry["weights"] += layer.in_features * layer.out_features
    return found


def _settings(method: str | Method | None, *, has_clips: bool) -> Method:
    if method is None:
        method = "everview" if has_clips else UNCALIBRATED
    settings = pick_method(method)
    if settings.needs_clips and not has_clips:
        raise ConfigError(
            "this method needs calibration clips; without any, methods nearest and quarot work, "
            "and the default"
        )
    return settings


def _prepare(
    network: Network,
    sites: Sequence[Site],
    clips: Sequence[Float[Tensor, "1 s 3 H W"]],
    method: Method,
    progress: Progress,
) -> None:
    """Scale and rotate the inputs of all layers; the network's function stays what it is."""
    rotations = {}
    if "rotate" in method.order:
        rotations = {
            site.name: _rotation(network, site, method, number) for number, site in enumerate(sites)
        }
    maxima: dict[str, Tensor] = {}
    if method.is_smoothing:
        maxima = activation_maxima(
            network, sites, clips, progress=progress, with_special=method.with_special_tokens,
            rotations=rotations if method.order == "rotate_smooth" else None,
        )  # fmt: skip
    for site in reversed(sites):  # a layer that makes values comes after the one that reads them
        transform = plan_transform(
            linear_of(network, site.name).weight, maxima.get(site.name), method.order,
            rotation=rotations.get(site.name), stat=method.stat, alpha=method.alpha,
        )  # fmt: skip
        fold(network, site, transform)


def _rotation(network: Network, site: Site, method: Method, number: int) -> Rotation:
    """The rotation of one layer; before `proj` one that stays within heads where it may."""
    width = linear_of(network, site.name).in_features
    generator = torch.Generator().manual_seed(method.seed * 1_000_003 + number)
    try:
        if site.qkv is not None and method.rotation_width is not None:
            head = width // site.num_heads
            signs = torch.randint(0, 2, (width,), generator=generator) * 2.0 - 1
            rotation = Rotation(signs, block_of(head, method.rotation_width))
        else:
            rotation = Rotation.random(width, generator, largest=method.rotation_width)
    except ConfigError as error:
        raise ConfigError(f"{site.name}: {error}") from error
    signs_here = rotation.signs
    assert signs_here is not None, "drawn above"
    device = linear_of(network, site.name).weight.device
    return Rotation(signs_here.to(device), rotation.block)


def _round(
    network: Network,
    sites: Sequence[Site],
    specs: Mapping[str, LinearSpec],
    clips: Sequence[Float[Tensor, "1 s 3 H W"]],
    method: Method,
    progress: Progress,
) -> dict[str, float]:
    """Replace all prepared layers by integers; returns errors of their outputs, where measured."""
    if method.learning_steps:
        _learn(network, sites, specs, clips, method, progress)
        return {}

    def prepared(site: Site) -> PreparedLinear:
        layer = network.get_submodule(site.name)
        assert isinstance(layer, PreparedLinear), "all sites were prepared"
        return layer

    def rounded(site: Site, hessian: Tensor | None) -> QuantizedLinear:
        try:
            return prepared(site).quantized(
                specs[site.name], rounding=method.rounding, hessian=hessian
            )
        except ConfigError as error:
            raise ConfigError(f"{site.name}: {error}") from error

    is_stepwise = method.propagate == "quantized"
    portions: Iterable[tuple[Sequence[Site], Mapping[str, Tensor]]] = [(sites, {})]
    if method.second_order:
        portions = input_products(
            network, sites, clips, lambda site, x: prepared(site).online.of_input(x),
            most_bytes=PRODUCTS_BYTES, by_block=is_stepwise,
        )  # fmt: skip
    waiting: dict[str, QuantizedLinear] = {}
    for portion, products in portions:
        for site in portion:
            waiting[site.name] = rounded(site, products.get(site.name))
            progress("rounding", len(waiting), len(sites))
        if is_stepwise:  # else the inputs of later layers come from the network as it is
            _place(network, waiting)
    errors = {} if is_stepwise or not clips else _output_errors(network, sites, waiting, clips[0])
    _place(network, waiting)
    return errors


def _output_errors(
    network: Network,
    sites: Sequence[Site],
    layers: Mapping[str, QuantizedLinear],
    images: Float[Tensor, "1 s 3 H W"],
) -> dict[str, float]:
    """Relative error of each layer's output, bias aside, on what the float network gives it."""
    squares: dict[str, tuple[float, float]] = {}

    def take(site: Site, x: Tensor) -> None:
        prepared = network.get_submodule(site.name)
        assert isinstance(prepared, PreparedLinear), "not yet replaced"
        exact = F.linear(prepared.online.of_input(x), prepared.weight, prepared.bias)
        off = layers[site.name].reference(x) - exact
        error, size = squares.get(site.name, (0.0, 0.0))
        said = exact if prepared.bias is None else exact - prepared.bias  # a bias is always right
        squares[site.name] = (
            error + float(off.square().sum()), size + float(said.square().sum())
        )  # fmt: skip

    with listening(network, sites, take):
        run_tokens(network, images)
    return {name: (error / max(size, 1e-30)) ** 0.5 for name, (error, size) in squares.items()}


def _place(network: Network, layers: Mapping[str, QuantizedLinear]) -> None:
    for name, layer in layers.items():
        replace_linear(network, name, layer.execute_with())


def _learn(
    network: Network,
    sites: Sequence[Site],
    specs: Mapping[str, LinearSpec],
    clips: Sequence[Float[Tensor, "1 s 3 H W"]],
    method: Method,
    progress: Progress,
) -> None:
    """Learn and round block after block; targets always come from the float network."""
    exact = copy.deepcopy(network)
    blocks = list(dict.fromkeys(site.block for site in sites))
    for number, block in enumerate(blocks):
        calls = record(exact, block, clips)
        if method.propagate == "quantized":
            inputs = record(network, block, clips)
            calls = [
                [dataclasses.replace(i, output=c.output) for i, c in zip(*pair, strict=True)]
                for pair in zip(inputs, calls, strict=True)
            ]
        chosen = [site for site in sites if site.block == block]
        layers = make_learnable(
            network, chosen, dict(specs), is_smoothing_last=method.order == "rotate_smooth"
        )
        learn_block(network, block, layers, calls, steps=method.learning_steps)
        if method.second_order:
            _listen(network, block, layers, calls)
        for site in chosen:
            layer = layers[site.name].quantized(site, second_order=method.second_order)
            replace_linear(network, site.name, layer.execute_with())
        progress("learning", number + 1, len(blocks))


def _listen(
    network: Network,
    block: str,
    layers: Mapping[str, LearnableLinear],
    calls: Sequence[Sequence[Call]],
) -> None:
    """Let learnable layers take the products of their inputs, for second-order rounding."""
    for layer in layers.values():
        layer.is_listening = True
    for of_clip in calls:
        for call in of_clip:
            replay(network.get_submodule(block), call)


def _facts(
    network: Network, sites: Sequence[Site], errors: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    """What a file says of each layer beside its tensors."""
    facts = {}
    for site in sites:
        layer = network.get_submodule(site.name)
        assert isinstance(layer, QuantizedLinear), "all sites were rounded"
        facts[site.name] = {**asdict(layer.spec), "block": layer.block}
        if site.name in errors:
            facts[site.name]["error"] = float(f"{errors[site.name]:.3g}")
    return facts
