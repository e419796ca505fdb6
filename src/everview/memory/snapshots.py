"""A stream's state on disk: one safetensors file, written atomically, read strictly."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from everview.errors import InputError
from everview.memory.layer_memory import LayerMemory
from everview.memory.policies import MemoryPolicy, parse
from everview.memory.state import StreamState, TrackedGroup

FORMAT = "everview.stream.1"
"""Name and version of the file format."""


def write_state(state: StreamState, path: Path, *, policy: str, config: dict[str, Any]) -> None:
    """Write all that is needed to go on.

    Args:
        path: replaced only when the whole file is on disk.
        policy: memory policy as text.
        config: of the network, to refuse another one when resuming.
    """
    header = {
        "format": FORMAT,
        "policy": policy,
        "config": config,
        "camera_cache": state.camera_cache,
        "batch": state.batch,
        "num_frames": state.num_frames,
        "image_size": state.image_size,
        "num_recent": [len(group.recent) for group in state.groups],
    }
    partial = path.with_name(path.name + ".tmp")
    save_file(_tensors(state), partial, metadata={"everview": json.dumps(header)})
    partial.replace(path)


def read_state(
    path: Path, *, config: dict[str, Any], device: torch.device
) -> tuple[StreamState, MemoryPolicy]:
    """Read what `write_state` wrote.

    Raises:
        InputError: if the file is absent, damaged, of another version, or of another network.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: give a file that Stream.save wrote")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = json.loads((file.metadata() or {}).get("everview", "{}"))
            _check(header, path, config)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is damaged ({error}): save the stream again") from error
    return _state(header, tensors, config), parse(header["policy"])


def _check(header: dict[str, Any], path: Path, config: dict[str, Any]) -> None:
    if header.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {header.get('format')!r}, this version reads {FORMAT!r}"
        )
    if header["config"] != json.loads(json.dumps(config)):
        raise InputError(f"{path} belongs to a network of another architecture: load that one")


def _tensors(state: StreamState) -> dict[str, Tensor]:
    tensors = {}
    for name, memory in state.memories().items():
        if memory.num_tokens:
            for kind, tensor in zip(("keys", "values"), memory.read(), strict=True):
                tensors[f"{name}.{kind}"] = tensor
    tensors |= {f"tokens.{layer}": tensor for layer, tensor in state.tokens.items()}
    tensors |= {f"recent_maps.{i}": tensor for i, tensor in enumerate(state.recent_maps)}
    for i, group in enumerate(state.groups):
        tensors |= {f"groups.{i}.queries": group.queries, f"groups.{i}.map": group.query_map}
        tensors |= {f"groups.{i}.recent.{j}": points for j, points in enumerate(group.recent)}
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


def _state(
    header: dict[str, Any], tensors: dict[str, Tensor], config: dict[str, Any]
) -> StreamState:
    camera = config["camera_head"]
    state = StreamState.empty(
        depth=config["aggregator"]["depth"],
        rounds=camera["num_iterations"],
        trunk_depth=camera["trunk_depth"],
        camera_cache=header["camera_cache"],
        batch=header["batch"],
    )
    state.num_frames = header["num_frames"]
    state.image_size = None if header["image_size"] is None else tuple(header["image_size"])
    for name, memory in state.memories().items():
        _fill(memory, tensors, name)
    prefix = "tokens."
    state.tokens = {int(n[len(prefix) :]): t for n, t in tensors.items() if n.startswith(prefix)}
    num_maps = sum(name.startswith("recent_maps.") for name in tensors)
    state.recent_maps = [tensors[f"recent_maps.{i}"] for i in range(num_maps)]
    for i, num_recent in enumerate(header["num_recent"]):
        recent = [tensors[f"groups.{i}.recent.{j}"] for j in range(num_recent)]
        queries, query_map = tensors[f"groups.{i}.queries"], tensors[f"groups.{i}.map"]
        state.groups.append(TrackedGroup(queries=queries, query_map=query_map, recent=recent))
    return state


def _fill(memory: LayerMemory, tensors: dict[str, Tensor], name: str) -> None:
    if f"{name}.keys" in tensors:
        memory.append(tensors[f"{name}.keys"], tensors[f"{name}.values"])
