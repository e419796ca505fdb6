"""Everview: any video in; poses, depth, points and tracks out, frame by frame."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what editors and the type checker see
    from everview import errors as errors
    from everview import evaluation as evaluation
    from everview import memory as memory
    from everview import quantization as quantization
    from everview import world as world
    from everview.frames.frame import Frame as Frame
    from everview.frames.preprocess import preprocess as preprocess
    from everview.frames.reader import read as read
    from everview.geometry.prediction import Prediction as Prediction
    from everview.model.config import Config as Config
    from everview.model.network import build as build
    from everview.model.presets import presets as presets
    from everview.outputs.recording import Recording as Recording
    from everview.weights.load import load as load
    from everview.weights.save import save as save

    __version__: str

__all__ = [
    "Config",
    "Frame",
    "Prediction",
    "Recording",
    "__version__",
    "build",
    "errors",
    "evaluation",
    "load",
    "memory",
    "preprocess",
    "presets",
    "quantization",
    "read",
    "save",
    "world",
]

_HOME = {
    "Config": "everview.model.config",
    "Frame": "everview.frames.frame",
    "Prediction": "everview.geometry.prediction",
    "Recording": "everview.outputs.recording",
    "build": "everview.model.network",
    "load": "everview.weights.load",
    "preprocess": "everview.frames.preprocess",
    "presets": "everview.model.presets",
    "read": "everview.frames.reader",
    "save": "everview.weights.save",
}
"""Public name -> module that defines it."""

_ROOMS = frozenset({"errors", "evaluation", "memory", "quantization", "world"})
"""Rooms whose content is public under the room's name, such as `everview.memory.parse`."""


def __getattr__(name: str) -> Any:  # noqa: ANN401  -- PEP 562: any public name
    """Load a public name on first use, so that `import everview` needs no torch."""
    value: Any
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    elif name in _ROOMS:
        value = import_module(f"everview.{name}")
    elif name == "__version__":
        from importlib.metadata import version  # here: 20 ms that few callers need

        value = version("everview")
    else:
        raise AttributeError(f"module 'everview' has no attribute {name!r}")
    globals()[name] = value  # next time it is found without a detour
    return value


def __dir__() -> list[str]:
    """Names for completion, loaded or not."""
    return sorted({*globals(), *__all__})
