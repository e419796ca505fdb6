"""AdamW or Muon, with decay of matrices only, and clipping of the whole gradient."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from everview.training.recipe.settings import OptimiserSettings
from everview.training.run.ranks import Ranks

NARROWEST = 64
"""Fewest rows and columns of a linear layer whose steps Muon turns."""
NARROWEST_KERNEL = 32
"""Likewise of a kernel of convolution as a matrix, one row per channel of its first axis."""


class SharedMuon(torch.optim.Muon):
    """Muon on ranks that have the same gradients: each turns a share of the matrices for all.

    A step costs each rank 1/n of the turning, and every matrix travels once. Momentum moves on
    all ranks, which is cheap: any of them can write a checkpoint.

    Source: ZeRO stage 1 (Rajbhandari et al. 2020, Sec. 5), without its saving of memory.
    """

    def __init__(self, params: Iterable[nn.Parameter], ranks: Ranks, **settings: Any) -> None:  # noqa: ANN401
        """Take settings of `torch.optim.Muon`; the shares cost about the same."""
        super().__init__(params, **settings)
        self._ranks = ranks
        self._shares: list[list[nn.Parameter]] = [[] for _ in range(ranks.count)]
        work = [0] * ranks.count
        for matrix in sorted(self.param_groups[0]["params"], key=_turning, reverse=True):
            idlest = work.index(min(work))
            self._shares[idlest].append(matrix)
            work[idlest] += _turning(matrix)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # noqa: ANN401  -- as in PyTorch
        """Turn our share, then hand it on and take the others'."""
        theirs = [
            (matrix, matrix.grad)
            for rank, share in enumerate(self._shares)
            for matrix in share
            if rank != self._ranks.rank and matrix.grad is not None
        ]
        for matrix, gradient in theirs:
            state = self.state[matrix]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
            state["momentum_buffer"].lerp_(gradient, 1 - self.param_groups[0]["momentum"])
            matrix.grad = None  # nothing to do for Muon
        loss = super().step(closure)
        for matrix, gradient in theirs:
            matrix.grad = gradient
        for rank, share in enumerate(self._shares):
            self._ranks.share(share, source=rank)
        return loss


MOMENTS = {torch.optim.AdamW: "exp_avg", SharedMuon: "momentum_buffer"}
"""What each optimiser cannot go on without."""


class Optimiser:
    """Optimisers of PyTorch that share the parameters among themselves and step as one."""

    def __init__(
        self,
        parts: Sequence[torch.optim.Optimizer],
        unfolded: Mapping[nn.Parameter, nn.Parameter] | None = None,
    ) -> None:
        """Take optimisers, and the matrices that some know in place of the kernels they view."""
        self._parts = parts
        self._unfolded = dict(unfolded or {})
        self._owners = {
            parameter: part
            for part in parts
            for group in part.param_groups
            for parameter in group["params"]
        }

    def state_of(self, parameter: nn.Parameter) -> dict[str, object] | None:
        """Moments of a parameter; None before its first step."""
        known = self._unfolded.get(parameter, parameter)
        owner = self._owners.get(known)
        return owner.state.get(known) if owner else None

    def set_state(self, parameter: nn.Parameter, state: dict[str, object]) -> bool:
        """Give a parameter the moments that it had; False, and nothing, if another kind made them.

        Kernels had AdamW's moments before Muon turned them.
        """
        known = self._unfolded.get(parameter, parameter)
        owner = self._owners[known]
        fits = MOMENTS[type(owner)] in state
        if fits:
            owner.state[known] = state
        return fits

    def set_rate(self, rate: float) -> None:
        """Learning rate of the next step."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate

    def step(self) -> None:
        """Change all parameters by their gradients."""
        for kernel, matrix in self._unfolded.items():
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        for part in self._parts:
            part.step()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)
        for kernel in self._unfolded:
            kernel.grad = None


def make_optimiser(
    module: nn.Module, settings: OptimiserSettings, ranks: Ranks | None = None
) -> Optimiser:
    """Of all parameters that learn; vectors and biases do not decay.

    With `settings.matrices == "muon"` the weights of wide layers, linear or of convolution, take
    Muon's steps, scaled to the size of AdamW's so that one rate holds for both; all else takes
    AdamW's. Several ranks share the work of Muon.

    Source: StreamVGGT released training, parameter groups. Muon: Jordan et al. 2024; the scale
    0.2 sqrt(max(rows, columns)): Liu et al., "Muon is scalable for LLM training", Sec. 2.2.
    """
    muon = settings.matrices == "muon"
    turned = _wide(module, (nn.Linear,), NARROWEST) if muon else []
    kernels = _wide(module, (nn.Conv2d, nn.ConvTranspose2d), NARROWEST_KERNEL) if muon else []
    unfolded = {p: nn.Parameter(_rows(p)) for p in kernels}
    others = {id(p) for p in (*turned, *unfolded)}
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
    if turned or unfolded:
        parts.append(
            SharedMuon(
                [*turned, *unfolded.values()],
                ranks or Ranks(),
                lr=settings.learning_rate,
                weight_decay=settings.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return Optimiser(parts, unfolded)


def clip(parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
    """Scale the gradient down to a largest norm; returns its norm before, over all shards."""
    norm = nn.utils.clip_grad_norm_(parameters, largest)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def _wide(
    module: nn.Module, kinds: tuple[type[nn.Module], ...], narrowest: int
) -> list[nn.Parameter]:
    weights = {m.weight for m in module.modules() if isinstance(m, kinds)}
    return [
        p for p in module.parameters()
        if p in weights and p.requires_grad and min(len(p), p[0].numel()) >= narrowest
    ]  # fmt: skip


def _turning(matrix: Tensor) -> int:
    """Floating-point operations of an iteration that turns a matrix: 4 r² c + 2 r³, r <= c."""
    r, c = sorted(matrix.shape)
    return 4 * r * r * c + 2 * r**3


def _rows(weight: Tensor) -> Tensor:
    """The same memory, which must be contiguous, as a matrix: a row per channel of axis 0."""
    return weight.detach().view(len(weight), -1)
