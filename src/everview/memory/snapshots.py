"""A stream's state on disk: one safetensors file, written atomically, read strictly."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from everview.errors import InputError
from everview.memory.policies import parse
from everview.memory.state import StreamState, TrackedGroup

FORMAT = "everview.stream.2"
"""Name and version of the file format."""


def write_state(state: StreamState, path: Path, *, network: dict[str, Any]) -> None:
    """Write all that is needed to go on.

    Args:
        path: replaced only when the whole file is on disk.
        network: plain values that tell the network, to refuse another one when resuming; with the
            architecture under `config`.
    """
    header = {
        "format": FORMAT,
        "policy": state.policy.text,
        "network": network,
        "camera_cache": state.camera_cache,
        "batch": state.batch,
        "num_frames": state.num_frames,
        "num_shortages": state.num_shortages,
        "image_size": state.image_size,
        "groups": [{"frame": group.frame, "points": group.points} for group in state.groups],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    save_file(_tensors(state), partial, metadata={"everview": json.dumps(header)})
    partial.replace(path)


def read_state(path: Path, *, network: dict[str, Any], device: torch.device) -> StreamState:
    """Read what `write_state` wrote.

    Raises:
        InputError: if the file is absent, damaged, of another version, or of another network.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: give a file that Stream.save wrote")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = json.loads((file.metadata() or {}).get("everview", "{}"))
            _check(header, path, network)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _state(header, tensors, network["config"])
    except (SafetensorError, json.JSONDecodeError, KeyError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path} is damaged ({reason}): save the stream again") from error


def _check(header: dict[str, Any], path: Path, network: dict[str, Any]) -> None:
    if header.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {header.get('format')!r}, this version reads {FORMAT!r}"
        )
    theirs, ours = header["network"], json.loads(json.dumps(network))
    for key, value in ours.items():
        if theirs.get(key) != value:
            what = "architecture" if key == "config" else key
            shown = "" if key == "config" else f" ({theirs.get(key)}, this one has {value})"
            raise InputError(f"{path} belongs to a network of another {what}{shown}: load that one")


def _tensors(state: StreamState) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, memory in state.memories().items():
        tensors |= {f"{name}.{kind}": tensor for kind, tensor in memory.tensors().items()}
    tensors |= {f"tokens.{layer}": tensor for layer, tensor in state.tokens.items()}
    tensors |= {f"recent_maps.{i}": tensor for i, tensor in enumerate(state.recent_maps)}
    for i, group in enumerate(state.groups):
        tensors |= {f"groups.{i}.queries": group.queries, f"groups.{i}.map": group.query_map}
        if group.latest is not None:
            tensors[f"groups.{i}.latest"] = group.latest
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


def _state(
    header: dict[str, Any], tensors: dict[str, Tensor], config: dict[str, Any]
) -> StreamState:
    camera = config["camera_head"]
    state = StreamState.empty(
        policy=parse(header["policy"]),
        depth=config["aggregator"]["depth"],
        rounds=camera["num_iterations"],
        trunk_depth=camera["trunk_depth"],
        camera_cache=header["camera_cache"],
        batch=header["batch"],
    )
    state.num_frames = state.num_settled = header["num_frames"]
    state.num_shortages = header.get("num_shortages", 0)
    state.image_size = None if header["image_size"] is None else tuple(header["image_size"])
    for name, memory in state.memories().items():
        of = f"{name}."
        held = {n[len(of) :]: t for n, t in tensors.items() if n.startswith(of)}
        try:
            memory.restore(held if held or not state.num_frames else {"": torch.empty(0)})
        except KeyError as error:
            raise KeyError(f"{name}.{error.args[0]}") from error
    if state.num_frames:
        state.policy.balance(state.layers, state.num_frames)
    prefix = "tokens."
    state.tokens = {int(n[len(prefix) :]): t for n, t in tensors.items() if n.startswith(prefix)}
    num_maps = sum(name.startswith("recent_maps.") for name in tensors)
    state.recent_maps = [tensors[f"recent_maps.{i}"] for i in range(num_maps)]
    for i, entry in enumerate(header["groups"]):
        state.groups.append(
            TrackedGroup(
                frame=entry["frame"],
                points=entry["points"],
                queries=tensors[f"groups.{i}.queries"],
                query_map=tensors[f"groups.{i}.map"],
                latest=tensors.get(f"groups.{i}.latest"),
            )
        )
    state.sort_tracks()
    return state
