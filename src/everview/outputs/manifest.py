"""recording.json: what a recording is, how it was made, and how to read its numbers."""

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from everview.errors import ConfigError, InputError
from everview.outputs.codes import CONFIDENCE_CODE, DEPTH_CODE

FORMAT, FORMAT_VERSION = "everview recording", 1

CONVENTIONS = {
    "camera_axes": "OpenCV: x right, y down, z forward",
    "world": "the camera of the first finished frame (trajectory.tum, points.ply)",
    "trajectory": "trajectory.tum: timestamp tx ty tz qx qy qz qw, world_from_camera, "
    "one line per finished frame; a quaternion is x y z w",
    "pose_encoding": "frames.jsonl, as the network gave it: translation 3, quaternion x y z w 4, "
    "field of view (vertical, horizontal) 2; camera_from_world of the network's own world, in "
    "which the first camera is only close to the identity",
    "pixels": "indices: the centre of the first pixel is (0, 0)",
    "intrinsics": "pinhole K in pixels of the dense maps; original = (network + 0.5 - offset) / "
    "scale - 0.5 per axis, with pixel_map",
    "depth": "z-depth along the optical axis",
    "confidence": ">= 1, grows with trust, not a probability",
    "row": "number among the finished frames: time axis of dense.zarr, line of trajectory.tum; "
    "skipped frames have none",
    "finished": "frames.jsonl is the truth: a frame is finished when its line is complete; "
    "counts here may lag behind by seconds while status is running",
    "status": "running (or killed: see updated), finished, stopped by the user, or failed",
    "tail": "finished frames that are not yet in a full shard lie in tail/, one file each",
}
UNITS = {
    "length": "scene units (unknown scale, one for poses, depth and points)",
    "angle": "radians",
    "timestamp": "seconds in the source's clock; the index for images without time",
    "latency": "seconds of the network, per frame",
    "memory": "bytes of the stream's past",
}


class OtherRunError(ConfigError):
    """A recording was made with another source, model or other settings (exit code 2)."""


def new_manifest(
    *, source: dict[str, Any], model: dict[str, Any], settings: dict[str, Any]
) -> dict[str, Any]:
    """The content of recording.json before the first frame.

    Args:
        source: what is read; plain values.
        model: name, licence, fingerprint, configuration.
        settings: everything that changes the numbers; two recordings with equal source, model and
            settings may continue each other.
    """
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": {name: version(name) for name in ("everview", "torch", "numpy", "zarr")}
        | {"python": platform.python_version()},
        "machine": platform.platform(),
        "created": now(),
        "updated": now(),
        "status": "running",
        "reason": None,
        "flags": [],
        "source": source,
        "model": model,
        "settings": settings,
        "counts": {"finished": 0, "skipped": 0, "skipped_by_reason": {}},
        "timings": {"seconds": 0.0, "network_seconds": 0.0, "resumed": 0},
        "network_size": None,
        "original_size": None,
        "pixel_map": None,
        "dense": {
            "depth": DEPTH_CODE.as_dict(),
            "depth_confidence": CONFIDENCE_CODE.as_dict(),
            "points_confidence": CONFIDENCE_CODE.as_dict(),
            "colour": "RGB, 0 .. 255, what the network saw",
        },
        "points": None,
        "conventions": CONVENTIONS,
        "units": UNITS,
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read recording.json.

    Raises:
        InputError: if the folder is no recording, or of a format that this version cannot read.
    """
    path = folder / "recording.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder} is no recording: it has no recording.json") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    found = (content.get("format"), content.get("format_version"))
    if found != (FORMAT, FORMAT_VERSION):
        raise InputError(
            f"{path} says format {found[0]!r}, version {found[1]!r}; this everview reads "
            f"{FORMAT!r}, version {FORMAT_VERSION}: install the version that wrote it"
        )
    return content


def check_same_run(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    """Refuse to continue a recording with something else.

    Raises:
        OtherRunError: naming the first entries of source, model or settings that differ.
    """
    compared = {
        "source": sorted(old["source"].keys() | new["source"].keys()),
        "model": ["fingerprint"],
        "settings": sorted(old["settings"].keys() | new["settings"].keys()),
    }
    differences = [
        f"{part} {key}: {old[part].get(key)!r} there, {new[part].get(key)!r} now"
        for part, keys in compared.items()
        for key in keys
        if old[part].get(key) != new[part].get(key)
    ]
    if differences:
        raise OtherRunError(
            f"{folder} was made with other settings ({'; '.join(differences[:3])}): "
            "repeat that call to --resume it, or name a new folder with -o"
        )


def now() -> str:
    """Time of day in UTC, ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
