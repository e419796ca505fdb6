"""Less memory for more time: a block keeps its input only, and is run again going backward."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from everview.model.heads.dense import DenseHead, DptFeatures
from everview.model.layers.block import Block
from everview.model.network import Network


def checkpoint_activations(network: Network) -> None:
    """Let every transformer block and dense head of a network work this way when it is trained."""
    for module in network.modules():
        if isinstance(module, Block):
            _wrap(module, "forward")
            _wrap(module, "causal")
        elif isinstance(module, DenseHead):
            _wrap(module, "predict")
        elif isinstance(module, DptFeatures):
            _wrap(module, "forward")


def _wrap(module: nn.Module, name: str) -> None:
    method: Callable[..., Any] = getattr(module, name)
    setattr(module, name, wraps(method)(partial(_run, module, method)))


def _run(module: nn.Module, method: Callable[..., Any], *inputs: Any, **named: Any) -> Any:  # noqa: ANN401
    if not module.training or named.get("memory") is not None:
        return method(*inputs, **named)
    return checkpoint(method, *inputs, use_reentrant=False, preserve_rng_state=False, **named)
