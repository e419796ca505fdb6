"""Files of parameters in any of the accepted forms, behind one interface."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from everview.errors import WeightsError
from everview.weights.safetensors_file import SafetensorsFile, open_safetensors
from everview.weights.torch_file import TorchFile, open_torch_file

SAFETENSORS = (".safetensors",)
TORCH = (".pt", ".pth", ".ckpt", ".bin")
SUFFIXES = SAFETENSORS + TORCH
"""Endings of the files that can be read."""

INDEX_SUFFIX = ".safetensors.index.json"
"""Ending of the file that lists the shards of a checkpoint that is spread over several files."""

FOLDER_NAMES = (
    "weights.safetensors", "weights.safetensors.index.json",
    "model.safetensors", "model.safetensors.index.json",
    "model.pt", "checkpoints.pth", "model.pth",
)  # fmt: skip
"""What is looked for in a folder, in this order."""

WRAPPER = "module."
"""Prefix that data-parallel training puts before each name; taken off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredWeights:
    """Parameters on disk: names, shapes and dtypes are known, values come with `read`."""

    files: tuple[SafetensorsFile | TorchFile, ...]
    shapes: Mapping[str, tuple[int, ...]]
    """Name -> shape, the prefix of data-parallel training taken off."""
    dtypes: frozenset[torch.dtype]
    """All dtypes that occur."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, in the order in which they are read."""
        return tuple(file.path for file in self.files)

    @property
    def num_bytes(self) -> int:
        """Size of all files together."""
        return sum(path.stat().st_size for path in self.paths)

    def read(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, value), each value in memory of its own, and keep nothing behind.

        Raises:
            WeightsError: if a file was changed since it was opened.
        """
        for file in self.files:
            yield from ((name.removeprefix(WRAPPER), value) for name, value in file.read())


def open_weights(path: Path) -> StoredWeights:
    """Open a file, an index of shards, or a folder that holds one of them.

    Raises:
        WeightsError: if nothing readable is there, or a file is damaged; names the file and byte.
    """
    if path.is_dir():
        path = find_weights(path)
    if path.name.endswith(INDEX_SUFFIX):
        return _collect(tuple(open_safetensors(shard) for shard in _shards(path)), path)
    if not path.is_file():
        raise WeightsError(f"{path} does not exist")
    if path.suffix in SAFETENSORS:
        return _collect((open_safetensors(path),), path)
    if path.suffix in TORCH:
        return _collect((open_torch_file(path),), path)
    raise WeightsError(
        f"{path.name} ends in {path.suffix or 'nothing'!r}; readable are {', '.join(SUFFIXES)} and "
        f"*{INDEX_SUFFIX}"
    )


def find_weights(folder: Path) -> Path:
    """The file in a folder that holds its parameters, or lists the shards that do.

    Raises:
        WeightsError: if there is none.
    """
    for name in FOLDER_NAMES:
        if (folder / name).is_file():
            return folder / name
    found = sorted(entry.name for entry in folder.iterdir())
    raise WeightsError(
        f"{folder} holds no weights; looked for {', '.join(FOLDER_NAMES)}; it has "
        f"{', '.join(found[:8]) or 'no file'}{' ...' if len(found) > 8 else ''}"
    )


def _collect(files: tuple[SafetensorsFile | TorchFile, ...], path: Path) -> StoredWeights:
    """Join the files of one checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: set[torch.dtype] = set()
    for file in files:
        for name, value in file.values.items():
            plain = name.removeprefix(WRAPPER)
            if plain in shapes:
                raise WeightsError(f"{path}: {plain!r} occurs twice, again in {file.path.name}")
            shapes[plain] = tuple(value.shape)
            dtypes.add(value.dtype)
    if not shapes:
        raise WeightsError(f"{path} holds no parameters")
    return StoredWeights(files=files, shapes=shapes, dtypes=frozenset(dtypes))


def _shards(index: Path) -> list[Path]:
    """Files that an index names, each once, all of them present."""
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
        names = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f'{index} is no index of shards: it needs a "weight_map"') from error
    for name in names:
        if Path(name).name != name:
            raise WeightsError(f"{index}: shard {name!r} must be a file name without a folder")
        if not (index.parent / name).is_file():
            raise WeightsError(
                f"{index.parent / name} is missing: {index.name} spreads {len(weight_map)} "
                f"parameters over {len(names)} files ({', '.join(names[:4])} ...)"
            )
    return [index.parent / name for name in names]
