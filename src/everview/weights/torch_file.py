"""PyTorch files (.pt, .pth): names and shapes first, values later; code in them is never run."""

import pickle
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from everview.errors import WeightsError
from everview.weights.safetensors_file import what_it_looks_like

NESTED = ("model", "state_dict", "model_state_dict")
"""Keys under which training code keeps the parameters, in the order in which they are tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchFile:
    """One file whose parameters are known by name and shape."""

    path: Path
    values: Mapping[str, Tensor]
    """Name -> tensor on the meta device: shape and dtype without values."""

    def read(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, value), each in memory of its own; nothing is kept behind.

        A file of parameters alone is read at once, which takes its size in memory. Where most of
        the file is something else (an optimizer's state) it is mapped, so that the rest stays out.

        Raises:
            WeightsError: if the file was changed since it was opened and cannot be read now.
        """
        num_bytes = sum(value.nbytes for value in self.values.values())
        mapped = zipfile.is_zipfile(self.path) and num_bytes < self.path.stat().st_size / 2
        parameters = dict(_parameters(_load(self.path, mmap=mapped), self.path))
        uses = Counter(value.untyped_storage().data_ptr() for value in parameters.values())
        for name in list(parameters):
            yield name, _owned(parameters.pop(name), uses, mapped=mapped)


def open_torch_file(path: Path) -> TorchFile:
    """Read names and shapes, and no values where the format allows that.

    Raises:
        WeightsError: if the file is cut off, wants to run code, or holds no parameters.
    """
    with path.open("rb") as file:
        begin = file.read(2)
    is_zip = zipfile.is_zipfile(path)
    if begin == b"PK" and not is_zip:
        raise WeightsError(
            f"{path} is cut off: it begins like a PyTorch file and has {path.stat().st_size:,} "
            "bytes, but the directory that belongs to its last bytes is missing. Fetch or copy the "
            "file again"
        )
    parameters = _parameters(_load(path, device="meta" if is_zip else "cpu"), path)
    return TorchFile(path=path, values={k: v.detach().to("meta") for k, v in parameters.items()})


def _load(path: Path, *, device: str = "cpu", mmap: bool = False) -> Any:  # noqa: ANN401
    """Unpickle tensors and plain containers, nothing else."""
    try:
        return torch.load(path, map_location=device, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign is None:
            raise _unreadable(path, "its content is no pickle of tensors") from error
        raise WeightsError(
            f"{path} holds an object of {foreign[1]} beside tensors; loading it would run code. "
            "Save plain parameters instead: torch.save(model.state_dict(), path)"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle fails in any way it likes
        reason = str(error).splitlines() or [type(error).__name__]
        raise _unreadable(path, reason[0]) from error


def _unreadable(path: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"{path} ({path.stat().st_size:,} bytes) cannot be read as a PyTorch file: {reason}"
        f"{what_it_looks_like(path)}. Fetch or copy the file again"
    )


def _parameters(checkpoint: Any, path: Path) -> Mapping[str, Tensor]:  # noqa: ANN401
    """Find the mapping of names to tensors: the checkpoint itself, or one level below."""
    if not isinstance(checkpoint, Mapping):
        raise WeightsError(
            f"{path} holds a {type(checkpoint).__name__}; expected parameters by name, as "
            "torch.save(model.state_dict(), path) writes them"
        )
    nested = [checkpoint[key] for key in NESTED if key in checkpoint]
    for candidate in (checkpoint, *nested):
        values = candidate.values() if isinstance(candidate, Mapping) else ()
        if values and all(isinstance(value, Tensor) for value in values):
            return candidate
    keys = ", ".join(map(repr, list(checkpoint)[:8])) or "nothing"
    raise WeightsError(
        f"{path} holds no parameters by name; it has {keys}. Expected name -> tensor, at the top "
        f"or under {', '.join(map(repr, NESTED))}"
    )


def _owned(value: Tensor, uses: Counter[int], *, mapped: bool) -> Tensor:
    """The value in memory that nothing else refers to, copied only if need be."""
    value = value.detach()
    storage = value.untyped_storage()
    is_whole = value.is_contiguous() and storage.nbytes() == value.nbytes
    if mapped or not is_whole or uses[storage.data_ptr()] > 1:
        return value.clone(memory_format=torch.contiguous_format)
    return value
