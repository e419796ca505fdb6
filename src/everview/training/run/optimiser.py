"""AdamW or Muon, with decay of matrices only, and clipping of the whole gradient."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from everview.training.recipe.settings import OptimiserSettings

NARROWEST = 64
"""Fewest rows and columns of a matrix that Muon turns; what leads in and out is narrower."""


class Optimiser:
    """Optimisers of PyTorch that share the parameters among themselves and step as one."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self._parts = parts
        self._owners = {
            parameter: part
            for part in parts
            for group in part.param_groups
            for parameter in group["params"]
        }

    def state_of(self, parameter: Tensor) -> dict[str, object] | None:
        """Moments of a parameter; None before its first step."""
        owner = self._owners.get(parameter)
        return owner.state.get(parameter) if owner else None

    def set_state(self, parameter: Tensor, state: dict[str, object]) -> None:
        """Give a parameter the moments that it had."""
        self._owners[parameter].state[parameter] = state

    def set_rate(self, rate: float) -> None:
        """Learning rate of the next step."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate

    def step(self) -> None:
        """Change all parameters by their gradients."""
        for part in self._parts:
            part.step()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)


def make_optimiser(module: nn.Module, settings: OptimiserSettings) -> Optimiser:
    """Of all parameters that learn; vectors and biases do not decay.

    With `settings.matrices == "muon"` the weights of wide linear layers take Muon's steps, scaled
    to the size of AdamW's so that one rate holds for both; all else takes AdamW's.

    Source: StreamVGGT released training, parameter groups. Muon: Jordan et al. 2024; the scale
    0.2 sqrt(max(rows, columns)): Liu et al., "Muon is scalable for LLM training", Sec. 2.2.
    """
    turned = _wide_matrices(module) if settings.matrices == "muon" else []
    others = {id(p) for p in turned}
    trained = [p for p in module.parameters() if p.requires_grad and id(p) not in others]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    parts: list[torch.optim.Optimizer] = []
    if any(group["params"] for group in groups):
        parts.append(
            torch.optim.AdamW(
                [group for group in groups if group["params"]],
                lr=settings.learning_rate,
                betas=settings.betas,
                fused=all(p.device.type == "cuda" for p in trained) or None,  # one kernel
            )
        )
    if turned:
        parts.append(
            torch.optim.Muon(
                turned,
                lr=settings.learning_rate,
                weight_decay=settings.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return Optimiser(parts)


def clip(parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
    """Scale the gradient down to a largest norm; returns its norm before, over all shards."""
    norm = nn.utils.clip_grad_norm_(parameters, largest)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def _wide_matrices(module: nn.Module) -> list[nn.Parameter]:
    weights = {m.weight for m in module.modules() if isinstance(m, nn.Linear)}
    return [
        p for p in module.parameters()
        if p in weights and p.requires_grad and min(p.shape) >= NARROWEST
    ]  # fmt: skip
