"""Files from the Hugging Face hub: fetched once, resumed when interrupted, found again offline."""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import (
    _CACHED_NO_EXIST,
    constants,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from everview.errors import WeightsError

ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
"""How a Hugging Face id looks: owner/name."""
COMMIT = re.compile(r"[0-9a-f]{40}")
"""How a revision looks that can never change."""

# The hub changed its HTTP library twice; the bases of its own error are that library's errors.
DOWNLOAD_ERRORS: tuple[type[BaseException], ...] = (OSError, *HfHubHTTPError.__bases__)


def fetch(repo: str, names: Sequence[str], *, revision: str | None = None) -> Path:
    """Path of the first of these files that the repository has, downloaded if need be.

    What an earlier download left here is used without asking the server: it takes no time, and
    works without a connection. To get a newer version, run `hf download REPO`, or name a branch or
    tag as the revision: then the server is asked, and an earlier download is used if it cannot be
    reached. An interrupted download goes on where it stopped. For an index of shards the shards of
    the same commit are fetched as well.

    Args:
        names: file names, the preferred one first; one that is here already goes before all.
        revision: branch, tag or commit; the main branch by default.

    Raises:
        WeightsError: if nothing can be had; says what to fetch from where, and where to put it.
    """
    try:
        with _quiet_hub():
            path = _first_that_exists(repo, names, revision)
    except GatedRepoError as error:
        raise WeightsError(
            f"{repo} asks for your consent first: open {constants.ENDPOINT}/{repo}, accept, then "
            "run `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise WeightsError(
            f"{repo} has no revision {revision!r}; see {constants.ENDPOINT}/{repo}/commits"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise WeightsError(
            f"there is no model {repo!r} at {constants.ENDPOINT}, or it is private (then run "
            "`hf auth login`); `everview models` lists known ones"
        ) from error
    except DOWNLOAD_ERRORS as error:
        reason = str(error).splitlines() or [type(error).__name__]
        raise WeightsError(
            f"the download of {repo} stopped: {reason[0]}. Run the same command again: it goes on "
            "where it stopped"
        ) from error
    if path.name.endswith(".index.json"):
        for shard in sorted(set(json.loads(path.read_text())["weight_map"].values())):
            fetch(repo, [shard], revision=commit_of(path) or revision)
    return path


def commit_of(path: Path) -> str | None:
    """The commit that a downloaded file belongs to; others of it must come from the same one."""
    return path.parent.name if COMMIT.fullmatch(path.parent.name) else None


def cached(repo: str, names: Sequence[str], *, revision: str | None = None) -> Path | None:
    """Path of the first of these files that an earlier download left here; asks no server."""
    for name in names:
        found = try_to_load_from_cache(repo, name, revision=revision)
        if isinstance(found, str):
            return Path(found)
    return None


def _first_that_exists(repo: str, names: Sequence[str], revision: str | None) -> Path:
    """Try the server if need be; once it cannot be reached, only what is on this machine."""
    present = cached(repo, names, revision=revision)
    is_commit = revision is not None and COMMIT.fullmatch(revision) is not None
    if present is not None and (revision is None or is_commit):
        return present
    wanted = names
    if is_commit:  # what it did not have once, it will never have
        names = [name for name in names if not _is_known_to_be_absent(repo, name, revision)]
    offline = False
    for name in [present.name] if present else names:
        try:
            found = hf_hub_download(repo, name, revision=revision, local_files_only=offline)
        except LocalEntryNotFoundError:  # a kind of EntryNotFoundError, so it comes first
            offline = True
        except EntryNotFoundError:
            continue
        else:
            return Path(found)
    if offline:
        raise WeightsError(_how_to_fetch_by_hand(repo, names[0], revision))
    raise WeightsError(
        f"{repo} has none of {', '.join(wanted)}; download its weights by hand and pass the file"
    )


def _is_known_to_be_absent(repo: str, name: str, revision: str | None) -> bool:
    return try_to_load_from_cache(repo, name, revision=revision) is _CACHED_NO_EXIST


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Keep the hub's warnings about each retry from the user, unless more was asked for."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    if level in (logging.NOTSET, logging.WARNING):
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _how_to_fetch_by_hand(repo: str, name: str, revision: str | None) -> str:
    with_revision = f" --revision {revision}" if revision else ""
    return (
        f"{repo} is not on this machine, and {constants.ENDPOINT} cannot be reached. Where there "
        f"is a connection, run `hf download {repo} {name}{with_revision}` (or fetch "
        f"{hf_hub_url(repo, name, revision=revision)}). Then either pass the file: "
        f'`--model PATH/{name}`, everview.load("PATH/{name}"); or copy the folder '
        f"models--{repo.replace('/', '--')} of that machine's cache to {constants.HF_HUB_CACHE}"
    )
