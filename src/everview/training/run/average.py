"""The moving average of what learns: steadier than the last step, and what is kept in the end."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from everview.training.run.ranks import local_part, placed


class MovingAverage:
    """Averages of the trainable parameters of a module, shard by shard if they are sharded."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self._values = {n: local_part(p.detach()).clone() for n, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the parameters; quickly in the first steps, which are far from the end."""
        keep = min(self.decay, (1 + step) / (10 + step))
        now = [local_part(parameter) for parameter in self._parameters.values()]
        torch._foreach_lerp_(list(self._values.values()), now, 1 - keep)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The module has the averages in place of its parameters."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def fill(self, values: Mapping[str, Tensor]) -> None:
        """Take averages that were stored whole, by the names of the module."""
        for name, parameter in self._parameters.items():
            self._values[name].copy_(local_part(placed(values[name], parameter)))

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            now = local_part(parameter)
            kept = now.clone()
            now.copy_(self._values[name])
            self._values[name].copy_(kept)
