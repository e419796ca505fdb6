"""Batches made in advance by processes of their own, in the order in which they are asked for."""

import atexit
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch.utils.data import DataLoader, Dataset

from everview.errors import EverviewError
from everview.training.feed.batch import Batch, Request
from everview.training.feed.procedural import ProceduralSource
from everview.training.recipe.recipe import TrainingRecipe
from everview.weights.devices import pick_device

Asked = TypeVar("Asked")
Made = TypeVar("Made")


@runtime_checkable
class Source(Protocol):
    """Makes any batch that is asked for."""

    def batch(self, request: Request) -> Batch:
        """A function of the request alone."""
        ...


def open_source(recipe: TrainingRecipe, *, num_parts: int, device: torch.device) -> Source:
    """The source that a recipe names.

    Args:
        recipe: what to show.
        num_parts: into how many parts a step is split.
        device: on which the network is trained.
    """
    if recipe.data.folders:
        from everview.training.feed.folders import FolderSource  # needs PyAV; the world does not

        return FolderSource(recipe, num_parts=num_parts)
    return ProceduralSource(
        recipe,
        num_parts=num_parts,
        device=str(rendering_device(recipe, device)),
        show_on=device,
    )


def rendering_device(recipe: TrainingRecipe, device: torch.device) -> torch.device:
    """Where the world is rendered: on a GPU if one trains, else on the CPU."""
    if recipe.data.device != "auto":
        return pick_device(recipe.data.device)
    return device if device.type == "cuda" else torch.device("cpu")


def processes(recipe: TrainingRecipe, device: torch.device) -> int:
    """How many processes make batches: none where a GPU renders them between the steps."""
    is_elsewhere = recipe.data.folders or rendering_device(recipe, device).type == "cpu"
    return recipe.data.processes if is_elsewhere else 0


def batches(
    source: Source, requests: Iterable[Request], *, processes: int, ahead: int
) -> Iterator[Batch]:
    """Batches for requests, which are taken in advance.

    `ahead` times `processes` requests are, or as many groups of procedural clips. Those are
    rendered in the processes and shown in this one. The processes end with the iterator, and soon
    after a main process that was killed.

    Raises:
        EverviewError: what the source raises.
    """
    if not processes:
        for request in requests:
            yield source.batch(request)
    elif isinstance(source, ProceduralSource):
        yield from _shown(source, requests, processes=processes, ahead=ahead)
    else:
        yield from _made_elsewhere(source.batch, requests, processes=processes, ahead=ahead)


def _shown(
    source: ProceduralSource, requests: Iterable[Request], *, processes: int, ahead: int
) -> Iterator[Batch]:
    """Batches of groups that processes render."""
    waiting: list[Request] = []
    wanted = source.new_groups(requests, waiting)
    for group in _made_elsewhere(source.renderer.group, wanted, processes=processes, ahead=ahead):
        source.take(group)
        while waiting and source.has(waiting[0]):
            yield source.batch(waiting.pop(0))


def _made_elsewhere(
    make: Callable[[Asked], Made], requests: Iterable[Asked], *, processes: int, ahead: int
) -> Iterator[Made]:
    """What a function makes of each request, in their order."""
    loader = DataLoader(
        _Requested(make),
        batch_size=None,
        sampler=requests,
        num_workers=processes,
        prefetch_factor=ahead,
        multiprocessing_context="spawn",
        worker_init_fn=_begin,
        generator=torch.Generator(),  # so that the state of torch's own stays as it is
    )
    for made in loader:
        if isinstance(made, EverviewError):
            raise made
        yield made


class _Requested(Dataset[Any]):
    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make = make

    def __getitem__(self, request: Any) -> Any:  # noqa: ANN401
        """Errors travel as results: their class and text would be wrapped otherwise."""
        try:
            return self.make(request)
        except EverviewError as error:
            return error


def _begin(worker: int) -> None:  # noqa: ARG001  -- the loader's signature
    torch.set_num_threads(1)
    os.nice(5)
    atexit.register(os._exit, 0)  # torch's threads abort an interpreter that ends the usual way
