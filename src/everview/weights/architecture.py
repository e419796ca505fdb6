"""Which network a file of weights belongs to."""

import dataclasses
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from everview.errors import WeightsError
from everview.model.config import Config
from everview.model.presets import presets
from everview.weights.catalog import CATALOG
from everview.weights.sources import Source

Attention = Literal["global", "causal"]
Shapes = Mapping[str, tuple[int, ...]]

HEADS = {
    "camera_head": "camera", "depth_head": "depth", "point_head": "points", "track_head": "tracks",
}  # fmt: skip
"""Name of a head's module and config -> what it predicts."""
OF_QUANTIZED = re.compile(
    r"\b(frame|global)_blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])\.(?!(weight|bias)$)"
)
"""Names below a linear layer of the aggregator that a float network has not."""


def config_of(source: Source, shapes: Shapes, *, attention: Attention | None = None) -> Config:
    """The network that weights belong to.

    In this order: `config.json` beside the weights; the catalog; names and shapes against the
    presets. In the last case the kind of attention is taken from the file's name (a warning says
    so unless the name is that of a published file), and heads of which the file holds nothing are
    left out, with a warning.

    Args:
        source: where the weights were found.
        shapes: name -> shape of all parameters in the files.
        attention: overrides what was found out.

    Raises:
        ConfigError: if `config.json` describes no network that can be built.
        WeightsError: if the weights are of an unknown network, with what was looked at.
    """
    config = read_config(source.config_path)
    if config is None and source.checkpoint is not None:
        config = presets[source.checkpoint.preset]
    if config is not None:
        return config if attention is None else dataclasses.replace(config, attention=attention)
    preset = _preset_of(shapes, source)
    guessed = _without_absent_heads(preset, shapes, source)
    if attention is None:
        other: Attention = "global" if preset.attention == "causal" else "causal"
        is_ambiguous = dataclasses.replace(preset, attention=other) in presets.values()
        attention = _attention_of(source) if is_ambiguous else preset.attention
    return dataclasses.replace(guessed, attention=attention)


def read_config(path: Path) -> Config | None:
    """The network that a `config.json` describes, None if it is absent or describes something else.

    Published checkpoints lie beside a `config.json` of another schema; that says nothing here.

    Raises:
        ConfigError: if its format or a key is unknown.
        WeightsError: if it is no JSON object.
    """
    content = read_content(path)
    if "format" not in content and "aggregator" not in content:
        return None
    return Config.from_dict(content)


def read_content(path: Path) -> dict[str, Any]:
    """What a `config.json` says; nothing if it is absent.

    Raises:
        WeightsError: if it is no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        content: Any = json.loads(path.read_text())
    except ValueError as error:
        raise WeightsError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} must hold a JSON object, not a {type(content).__name__}")
    return content


def heads_of(config: Config) -> tuple[str, ...]:
    """What a network predicts, as words of the catalog."""
    return tuple(word for name, word in HEADS.items() if getattr(config, name) is not None)


def hint_of_quantization(shapes: Shapes) -> str:
    """What to say of a file whose names are those of quantized layers; nothing for others."""
    name = next((name for name in shapes if OF_QUANTIZED.search(name)), None)
    if name is None:
        return ""
    return (
        f". {name!r} belongs to a quantized layer: a folder of `everview quantize` needs its "
        "config.json; parameter files of QuantVGGT cannot be loaded (docs/quantization.md says "
        "why): quantize the float checkpoint with --method quantvggt"
    )


def _preset_of(shapes: Shapes, source: Source) -> Config:
    """The preset with this width and these depths; the other details are checked when loading."""
    found = _size_of_file(shapes)
    if found is None:
        raise WeightsError(
            f"{source.name} does not have the names of a VGGT network: it lacks "
            f"'aggregator.camera_token' and has {', '.join(map(repr, list(shapes)[:3]))} ... "
            f"({len(shapes)} in all){hint_of_quantization(shapes)}"
        )
    for config in presets.values():
        if _size_of_config(config) == found:
            return config
    width, encoder_depth, depth = found
    raise WeightsError(
        f"{source.name} is a network of no known size: {width} channels, {encoder_depth} encoder "
        f"blocks, {depth} pairs of blocks; known are {', '.join(presets)}. Put a config.json "
        "beside it, or pass everview.load(..., config=everview.Config(...))"
    )


def _size_of_config(config: Config) -> tuple[int, int, int]:
    return config.aggregator.embed_dim, config.patch_embed.depth, config.aggregator.depth


def _size_of_file(shapes: Shapes) -> tuple[int, int, int] | None:
    """Channels, encoder blocks, pairs of blocks."""
    token = shapes.get("aggregator.camera_token")
    if not token:
        return None
    depths = [
        len({name.removeprefix(prefix).split(".")[0] for name in shapes if name.startswith(prefix)})
        for prefix in ("aggregator.patch_embed.blocks.", "aggregator.frame_blocks.")
    ]
    return token[-1], depths[0], depths[1]


def _without_absent_heads(config: Config, shapes: Shapes, source: Source) -> Config:
    parts = {name.split(".")[0] for name in shapes}
    absent = [name for name in HEADS if name != "camera_head" and name not in parts]
    if not absent:
        return config
    words = ", ".join(HEADS[name] for name in absent)
    warnings.warn(
        f"{source.name} holds no {' and no '.join(absent)}: the network will not predict {words}",
        stacklevel=2,
    )
    nothing: dict[str, Any] = dict.fromkeys(absent)
    return dataclasses.replace(config, **nothing)


def _attention_of(source: Source) -> Attention:
    """Tell the kind of attention from names, for no parameter shows it."""
    file, folder = source.path.name.lower(), source.path.absolute().parent.name.lower()
    if "stream" in file or "streamvggt" in f"{folder} {source.name.lower()}":
        return "causal"
    for checkpoint in CATALOG.values():
        if not checkpoint.bundled and source.path.name in checkpoint.files:
            return presets[checkpoint.preset].attention
    warnings.warn(
        f'{source.name} does not say which attention it was trained with; taking "global" (VGGT). '
        'For StreamVGGT pass everview.load(..., attention="causal")',
        stacklevel=2,
    )
    return "global"
