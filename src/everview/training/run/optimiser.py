"""AdamW with decay of matrices only, and clipping of the whole gradient."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from everview.training.recipe.settings import OptimiserSettings


def make_optimiser(module: nn.Module, settings: OptimiserSettings) -> torch.optim.AdamW:
    """Of all parameters that learn; vectors and biases do not decay.

    Source: StreamVGGT released training, parameter groups.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(
        groups,
        lr=settings.learning_rate,
        betas=settings.betas,
        fused=all(p.device.type == "cuda" for p in trained) or None,  # one kernel, not dozens
    )


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Learning rate of the next step."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def clip(parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
    """Scale the gradient down to a largest norm; returns its norm before, over all shards."""
    norm = nn.utils.clip_grad_norm_(parameters, largest)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm
