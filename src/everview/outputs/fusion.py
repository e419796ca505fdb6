"""One coloured cloud out of many depth maps: averages in voxels, with bounded memory."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from everview.errors import ConfigError

CELLS_PER_AXIS = 1 << 21
"""A voxel's three numbers share 63 bits of one integer."""
MAX_WAITING_FRAMES, MAX_WAITING_POINTS = 256, 1 << 18
POINT_BYTES = 215
"""Peak of a point: 48 bytes of sums, and what merging takes for a moment. Measured (slow test)."""
NEW = 0.5
"""Share of pixels that come to lie in voxels of their own, of the bundled model in a room."""
LEAST_POINTS = 50_000


@dataclass(frozen=True, kw_only=True, slots=True)
class FusionConfig:
    """Which pixels enter the cloud, and how fine it is."""

    voxel_fraction: float = 0.01
    """Voxel edge as a fraction of the median depth of the first frame that has any."""
    confidence_quantile: float = 0.3
    """This fraction of each frame's pixels, the least confident ones, stays out; in [0, 1)."""
    edge_tolerance: float = 0.02
    """Bend of inverse depth between neighbours, relative to itself, above which a pixel counts as
    flying between two surfaces and stays out. A plane, however slanted, has none."""
    max_points: int = 1_000_000
    """Above it the voxel edge doubles, as often as needed; for bytes see `cloud_bytes`."""
    max_pixels_per_frame: int = 60_000
    """Larger depth maps enter with every second, third, ... row and column."""

    def __post_init__(self) -> None:
        """Refuse what would leave no point."""
        if not 0 <= self.confidence_quantile < 1:
            raise ConfigError(
                "FusionConfig.confidence_quantile must be in [0, 1), "
                f"got {self.confidence_quantile}"
            )
        for name in ("voxel_fraction", "edge_tolerance", "max_points", "max_pixels_per_frame"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"FusionConfig.{name} must be > 0, got {getattr(self, name)}")


def cloud_bytes(
    size: tuple[int, int], num_frames: int | None, config: FusionConfig | None = None
) -> int:
    """About what the cloud of a source takes at its peak; how much is seen twice is not known.

    Args:
        size: (height, width) of its depth maps.
        num_frames: None if unknown.
    """
    config = config or FusionConfig()
    points = config.max_points + max(MAX_WAITING_POINTS, config.max_points // 4)
    if num_frames is not None:
        pixels = min(size[0] * size[1], config.max_pixels_per_frame)
        share = NEW * (1 - config.confidence_quantile)
        points = min(points, int(num_frames * pixels * share))
    return POINT_BYTES * points


def points_within(num_bytes: int) -> int:
    """`FusionConfig.max_points` of a cloud that takes no more, but no fewer than `LEAST_POINTS`."""
    points = num_bytes // POINT_BYTES - MAX_WAITING_POINTS
    return max(LEAST_POINTS, min(points, FusionConfig().max_points))


class VoxelCloud:
    """Sums of positions and colours per voxel.

    New points wait in a buffer and are merged by sorting, so that adding a frame costs little
    however large the cloud is. What comes out depends on the order of the frames and on nothing
    else: a continued recording gives the same cloud as an uninterrupted one.
    """

    def __init__(self, config: FusionConfig) -> None:
        self.config = config
        self.voxel_size = 0.0
        """Edge in scene units; 0 until the first point has come."""
        self._sums = _Sums.empty()
        self._waiting: list[_Sums] = []
        self._num_waiting = 0

    def add(
        self,
        depth: Float[np.ndarray, "H W"],
        confidence: Float[np.ndarray, "H W"] | None,
        colour: UInt8[np.ndarray, "H W 3"],
        *,
        world_from_camera: Float[np.ndarray, "4 4"],
        intrinsics: Float[np.ndarray, "3 3"],
    ) -> None:
        """Fuse one frame.

        Args:
            depth: z-depth in scene units; NaN where there is none.
            confidence: grows with trust; None keeps all pixels.
            world_from_camera: into the frame of the cloud.
            intrinsics: K in pixels of `depth`.
        """
        stride = int(np.ceil(np.sqrt(depth.size / self.config.max_pixels_per_frame)))
        keep = self._select(depth, confidence)[::stride, ::stride]
        rows, columns = np.nonzero(keep)
        if not len(rows):
            return
        rows, columns = rows * stride, columns * stride
        z = depth[rows, columns].astype(np.float64)
        pixels = np.stack([columns, rows, np.ones(len(rows))], axis=-1)
        in_camera = pixels @ np.linalg.inv(intrinsics).T * z[:, None]
        points = in_camera @ world_from_camera[:3, :3].T + world_from_camera[:3, 3]
        if not self.voxel_size:
            self.voxel_size = float(np.median(z)) * self.config.voxel_fraction
        self._wait(_Sums.of_points(points, colour[rows, columns], self.voxel_size))

    def points_and_colours(self) -> tuple[Float[np.ndarray, "n 3"], UInt8[np.ndarray, "n 3"]]:
        """Mean position and mean colour of every voxel that holds a point."""
        sums = _Sums.merged([self._sums, *self._waiting])  # the waiting ones wait on
        return sums.mean_positions(), np.rint(sums.mean_colours()).astype(np.uint8)

    def as_dict(self) -> dict[str, Any]:
        """Settings and the voxel size that came out, for recording.json."""
        return {**asdict(self.config), "voxel_size": self.voxel_size}

    def _select(
        self, depth: Float[np.ndarray, "H W"], confidence: Float[np.ndarray, "H W"] | None
    ) -> Bool[np.ndarray, "H W"]:
        keep = np.isfinite(depth) & (depth > 0) & ~_flying(depth, self.config.edge_tolerance)
        if confidence is not None and self.config.confidence_quantile > 0:
            known = np.nan_to_num(confidence, nan=0.0)
            keep &= known >= np.quantile(known, self.config.confidence_quantile)
        return keep

    def _wait(self, sums: "_Sums") -> None:
        self._waiting.append(sums)
        self._num_waiting += len(sums.keys)
        is_much = self._num_waiting >= max(MAX_WAITING_POINTS, len(self._sums.keys) // 4)
        if is_much or len(self._waiting) >= MAX_WAITING_FRAMES:
            self._merge()

    def _merge(self) -> None:
        self._sums = _Sums.merged([self._sums, *self._waiting])
        self._waiting, self._num_waiting = [], 0
        while len(self._sums.keys) > self.config.max_points:
            self.voxel_size *= 2
            self._sums = self._sums.coarsened(self.voxel_size)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sums:
    """Voxels in ascending order of their key, each with the sums of what fell into it."""

    keys: Int[np.ndarray, " n"]
    counts: Float[np.ndarray, " n"]
    positions: Float[np.ndarray, "n 3"]
    colours: Float[np.ndarray, "n 3"]

    @staticmethod
    def empty() -> "_Sums":
        nothing = np.zeros((0, 3))
        return _Sums(
            keys=np.zeros(0, np.int64),
            counts=np.zeros(0, np.float32),
            positions=nothing,
            colours=nothing.astype(np.float32),
        )

    @staticmethod
    def of_points(
        points: Float[np.ndarray, "n 3"], colours: UInt8[np.ndarray, "n 3"], voxel_size: float
    ) -> "_Sums":
        """Sort points into voxels; what lies beyond a million voxels from the origin is dropped."""
        keys, inside = _voxel_keys(points, voxel_size)
        return _Sums._grouped(
            keys[inside],
            np.ones(int(inside.sum()), np.float32),
            points[inside],
            colours[inside].astype(np.float32),
        )

    @staticmethod
    def merged(parts: list["_Sums"]) -> "_Sums":
        return _Sums._grouped(
            np.concatenate([part.keys for part in parts]),
            np.concatenate([part.counts for part in parts]),
            np.concatenate([part.positions for part in parts]),
            np.concatenate([part.colours for part in parts]),
        )

    def coarsened(self, voxel_size: float) -> "_Sums":
        keys, inside = _voxel_keys(self.mean_positions(), voxel_size)
        return _Sums._grouped(
            keys[inside], self.counts[inside], self.positions[inside], self.colours[inside]
        )

    def mean_positions(self) -> Float[np.ndarray, "n 3"]:
        return self.positions / self.counts[:, None]

    def mean_colours(self) -> Float[np.ndarray, "n 3"]:
        return self.colours / self.counts[:, None]

    @staticmethod
    def _grouped(
        keys: Int[np.ndarray, " m"],
        counts: Float[np.ndarray, " m"],
        positions: Float[np.ndarray, "m 3"],
        colours: Float[np.ndarray, "m 3"],
    ) -> "_Sums":
        if not len(keys):
            return _Sums.empty()
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        return _Sums(
            keys=keys[starts],
            counts=np.add.reduceat(counts[order], starts),
            positions=np.add.reduceat(positions[order], starts, axis=0),
            colours=np.add.reduceat(colours[order], starts, axis=0),
        )


def _voxel_keys(
    points: Float[np.ndarray, "n 3"], voxel_size: float
) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """One whole number per voxel, and which points are near enough to have one."""
    cells = np.floor(points / voxel_size) + CELLS_PER_AXIS // 2
    inside = np.all((cells >= 0) & (cells < CELLS_PER_AXIS), axis=-1)
    x, y, z = np.where(inside[:, None], cells, 0).astype(np.int64).T
    return (x * CELLS_PER_AXIS + y) * CELLS_PER_AXIS + z, inside


def _flying(depth: Float[np.ndarray, "H W"], tolerance: float) -> Bool[np.ndarray, "H W"]:
    """Pixels on a step of depth: on any plane inverse depth is linear in the pixel."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1 / depth
        limit = tolerance * inverse
        flying = np.zeros(depth.shape, bool)
        for axis in (0, 1):
            middle = [slice(None), slice(None)]
            middle[axis] = slice(1, -1)
            bend = np.abs(np.diff(inverse, n=2, axis=axis))
            flying[tuple(middle)] |= ~(bend <= limit[tuple(middle)])
    return flying
