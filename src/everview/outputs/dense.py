"""Dense maps on disk: a Zarr store of full shards, and a tail of single frames that is not yet one.

Each finished frame is first a file of its own in the tail, so that a kill loses none. When a shard
is full, its frames move into the store: one file per map for many frames. A frame is read from the
tail if it is there, else from the store; it leaves the tail only after the store has it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from safetensors import safe_open
from safetensors.numpy import save
from zarr.codecs import BloscCodec, ZstdCodec

from everview.outputs.files import remove_partial_files, replace_file

FRAMES_PER_SHARD = 64

Maps = dict[str, np.ndarray]


class DenseReader:
    """Reads single frames of the maps, also while another process writes them."""

    def __init__(self, store: Path, tail: Path) -> None:
        self.store, self.tail = store, tail
        self._arrays: dict[str, Any] = {}
        self._names: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Which maps there are; empty before the first frame."""
        if not self._names and (self.store / "zarr.json").exists():
            self._names = tuple(sorted(zarr.open_group(self.store, mode="r").array_keys()))
        return self._names

    def read(self, name: str, row: int) -> np.ndarray:
        """One frame of one map, as stored (see the array's attributes for the code).

        Raises:
            IndexError: if the frame is neither in the tail nor in the store.
        """
        try:
            with safe_open(tail_file(self.tail, row), framework="numpy") as file:
                return file.get_tensor(name)
        except FileNotFoundError:
            return self._read_stored(name, row)

    def _read_stored(self, name: str, row: int) -> np.ndarray:
        array = self._array(name, row)
        if row >= array.shape[0]:
            raise IndexError(f"{self.store} holds {array.shape[0]} frames; asked for {row}")
        return np.asarray(array[row])

    def _array(self, name: str, row: int) -> Any:  # noqa: ANN401  -- zarr is not typed here
        if name not in self._arrays or row >= self._arrays[name].shape[0]:  # it may have grown
            self._arrays[name] = zarr.open_array(self.store, path=name, mode="r")
        return self._arrays[name]


class DenseWriter:
    """Appends frames; one writer at a time."""

    def __init__(
        self, store: Path, tail: Path, *, attributes: Mapping[str, dict[str, Any]] | None = None
    ) -> None:
        """Prepare the folders; `attributes` are stored with the map of the same name."""
        self.store, self.tail = store, tail
        self._attributes = dict(attributes or {})
        self._reader = DenseReader(store, tail)
        self.tail.mkdir(exist_ok=True)

    def append(self, row: int, maps: Maps) -> None:
        """Commit one frame: after the return it survives a kill.

        Args:
            row: number of the frame among the finished ones, counting up by one.
            maps: values as they shall be stored; the same names, shapes and types each time.
        """
        if row == 0:
            self._create(maps)
        contiguous = {name: np.ascontiguousarray(values) for name, values in maps.items()}
        content = save(contiguous)  # save_file would go through a file of its own naming
        replace_file(tail_file(self.tail, row), lambda path: path.write_bytes(content))
        if (row + 1) % FRAMES_PER_SHARD == 0:
            self._fold(row + 1)

    def finish(self, num_rows: int) -> None:
        """Move the tail into the store, though the last shard is not full, and remove it."""
        if num_rows % FRAMES_PER_SHARD:
            self._fold(num_rows)
        if num_rows and not any(self.tail.iterdir()):
            self.tail.rmdir()

    def reopen(self, num_rows: int) -> None:
        """Go on after a kill or after `finish`: drop what was committed beyond `num_rows` frames.

        A move into the store that was cut short is done again with the last frame of its shard,
        which cannot have been finished: `append` had not returned.
        """
        remove_partial_files(self.tail)
        for path in self.tail.glob("[0-9]*.safetensors"):
            if int(path.name.split(".")[0]) >= num_rows:
                path.unlink()

    def _create(self, maps: Maps) -> None:
        group = zarr.open_group(self.store, mode="w", zarr_format=3)
        for name, values in maps.items():
            axes = ("time", "y", "x", "channel")[: 1 + values.ndim]
            group.create_array(
                name,
                shape=(0, *values.shape),
                chunks=(1, *values.shape),
                shards=(FRAMES_PER_SHARD, *values.shape),
                dtype=values.dtype,
                compressors=_compressor(values.dtype),
                dimension_names=axes,
                attributes=self._attributes.get(name, {}),
            )

    def _fold(self, stop: int) -> None:
        """Move the last, perhaps not full, shard of `stop` frames from the tail into the store.

        Frames of it that are in the store already (of a recording that was stopped) are read from
        there and written again: Zarr replaces the file of a shard in one step.
        """
        start = (stop - 1) // FRAMES_PER_SHARD * FRAMES_PER_SHARD
        for name in self._reader.names():
            slab = np.stack([self._reader.read(name, row) for row in range(start, stop)])
            array = zarr.open_array(self.store, path=name, mode="r+")
            array.resize((stop, *slab.shape[1:]))
            array[start:stop] = slab
        for row in range(start, stop):
            tail_file(self.tail, row).unlink(missing_ok=True)


def tail_file(tail: Path, row: int) -> Path:
    """Where a frame lies that is not yet in a full shard."""
    return tail / f"{row:08d}.safetensors"


def _compressor(dtype: np.dtype) -> Any:  # noqa: ANN401  -- zarr is not typed here
    """Zstandard; with the bytes of wider numbers sorted first, which saves a third on depth."""
    if dtype.itemsize == 1:
        return ZstdCodec(level=3)
    return BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=dtype.itemsize)
