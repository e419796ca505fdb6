"""Optional packages for file formats of training sets, asked for only when such a file comes."""

from importlib import import_module
from typing import Any

from everview.errors import MissingExtraError

INSTALL = 'pip install "everview[data]"'
"""Brings the packages of all training sets."""


def exr_module() -> Any:  # noqa: ANN401  -- a module without types
    """The package that reads and writes OpenEXR files.

    Raises:
        MissingExtraError: if it is not installed.
    """
    return _module("OpenEXR", "OpenEXR depth (.exr)")


def hdf5_module() -> Any:  # noqa: ANN401  -- a module without types
    """The package that reads and writes HDF5 files.

    Raises:
        MissingExtraError: if it is not installed.
    """
    return _module("h5py", "HDF5 lists of frames (.h5)")


def _module(name: str, purpose: str) -> Any:  # noqa: ANN401  -- a module without types
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"{purpose} needs the package {name}: {INSTALL}") from error
