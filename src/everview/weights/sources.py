"""From what the user typed to files on this machine."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from everview.errors import ConfigError, WeightsError
from everview.weights import hub
from everview.weights.catalog import CATALOG, Checkpoint, bundled_folder, bundled_names
from everview.weights.files import FOLDER_NAMES

CONFIG_NAME = "config.json"
"""File beside the weights that describes the network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a model was found."""

    name: str
    """Bundled name, Hugging Face id, or name of the file or folder; for people to read."""
    path: Path
    """A file of weights, an index of shards, or a folder with one of them."""
    checkpoint: Checkpoint | None = None
    """What the catalog knows about it."""
    revision: str | None = None
    """Revision that was asked for, of a Hugging Face id."""

    @property
    def config_path(self) -> Path:
        """Where a description of the network would be."""
        return (self.path if self.path.is_dir() else self.path.parent) / CONFIG_NAME


def find_source(source: str | os.PathLike[str], *, revision: str | None = None) -> Source:
    """Find a model: a bundled name first, then a path, then a Hugging Face id (fetched if need be).

    Raises:
        ConfigError: if a revision is asked of something that is no Hugging Face id.
        WeightsError: if nothing of that name exists or can be fetched; says what to do.
    """
    text = os.path.expanduser(os.fspath(source))  # noqa: PTH111  -- keeps a slash at the end
    is_path = Path(text).exists() and text not in bundled_names()
    is_id = not is_path and hub.ID.fullmatch(text) is not None and not _looks_like_a_file(text)
    if revision is not None and not is_id:
        raise ConfigError(
            f"revision {revision!r} only goes with a Hugging Face id such as "
            f"facebook/VGGT-1B; {text!r} is none"
        )
    if text in bundled_names():
        return _bundled(text)
    if is_path:
        return Source(name=Path(text).resolve().name, path=Path(text))
    if is_id:
        return _from_hub(text, revision)
    raise WeightsError(
        f"there is no model {text!r}: no such file or folder, and the bundled ones are "
        f"{', '.join(bundled_names())}. Give a path, or a Hugging Face id such as "
        "lch01/StreamVGGT; `everview models` lists known ones"
    )


def _looks_like_a_file(text: str) -> bool:
    return Path(text).suffix in (".pt", ".pth", ".safetensors", ".json", ".ckpt", ".bin")


def _bundled(name: str) -> Source:
    folder = bundled_folder(name)
    if not folder.is_dir():
        raise WeightsError(
            f"the bundled model {name!r} is missing at {folder}; install everview again "
            "(pip install --force-reinstall everview)"
        )
    return Source(name=name, path=folder, checkpoint=CATALOG[name])


def _from_hub(repo: str, revision: str | None) -> Source:
    checkpoint = CATALOG.get(repo)
    if checkpoint is not None:
        path = hub.fetch(repo, checkpoint.files, revision=revision)
        return Source(name=repo, path=path, checkpoint=checkpoint, revision=revision)
    path = hub.fetch(repo, FOLDER_NAMES, revision=revision)
    with suppress(WeightsError):  # without it the network is told from names and shapes
        hub.fetch(repo, [CONFIG_NAME], revision=hub.commit_of(path) or revision)
    return Source(name=repo, path=path, revision=revision)
