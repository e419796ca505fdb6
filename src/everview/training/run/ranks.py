"""One process or several: who we are, and what all must agree on."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor, distribute_tensor

PATIENCE = timedelta(minutes=30)
"""Silence after which a rank takes the others for dead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    """Number of this one."""
    count: int = 1
    """How many there are."""
    local: int = 0
    """Number on this machine: which GPU."""

    @property
    def is_first(self) -> bool:
        """Whether this one writes and prints."""
        return self.rank == 0

    def device(self, picked: torch.device) -> torch.device:
        """The device of this rank: each takes a GPU of its own."""
        if self.count > 1 and picked.type == "cuda":
            return torch.device("cuda", self.local)
        return picked

    def largest(self, values: Tensor) -> Tensor:
        """Element by element, the largest of all ranks."""
        if self.count > 1:
            dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return values

    def agree(self, seconds: float, wants_stop: bool) -> tuple[float, float]:
        """The longest time that any rank counts, and whether (1) or not (0) any wants to stop."""
        device = "cuda" if self.count > 1 and dist.get_backend() == "nccl" else "cpu"
        both = torch.tensor([seconds, wants_stop], dtype=torch.float64, device=device)
        latest, stop = self.largest(both).tolist()
        return latest, stop

    def gathered(self, value: Any) -> list[Any]:  # noqa: ANN401  -- anything that pickles
        """One value per rank, on every rank."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value)
        return found

    def share(self, tensors: Sequence[Tensor], *, source: int) -> None:
        """Write what one rank has in these tensors into those of all others, in one message."""
        if self.count == 1 or not tensors:
            return
        message = torch.cat([tensor.detach().flatten() for tensor in tensors])
        dist.broadcast(message, source)
        if self.rank != source:
            parts = message.split([tensor.numel() for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.detach().copy_(part.view_as(tensor))

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the processes that `torchrun` started; alone without it."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(rank=int(os.environ["RANK"]), count=count, local=local)
    finally:
        dist.destroy_process_group()


def local_part(value: Tensor) -> Tensor:
    """The shard that this rank holds; the whole tensor if it is not sharded. Shares memory."""
    return value.to_local() if isinstance(value, DTensor) else value


def whole(value: Tensor) -> Tensor:
    """All of a tensor on the CPU; every rank must ask if it is sharded."""
    full = value.full_tensor() if isinstance(value, DTensor) else value
    return full.detach().to("cpu", copy=True)


def placed(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor on the device of another one, and sharded as that is; every rank must ask."""
    moved = value.to(like.device)
    if isinstance(like, DTensor):
        return distribute_tensor(moved, like.device_mesh, like.placements)
    return moved
