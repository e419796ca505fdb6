"""A linear layer that holds integers, or floats of 8 bits."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from everview.errors import ConfigError
from everview.quantization import arithmetic as kernels
from everview.quantization.arithmetic import Arithmetic, OneDnnProduct, pick
from everview.quantization.grids import (
    ClipFactors,
    Rounding,
    Steps,
    clip_weights,
    fit_weights,
    from_levels,
    in_groups,
    search_steps,
    to_levels,
    token_levels,
)
from everview.quantization.hadamard import Rotation
from everview.quantization.packing import pack_nibbles, unpack_nibbles
from everview.quantization.second_order import second_order_levels
from everview.quantization.smoothing import InputTransform
from everview.quantization.spec import LinearSpec

FLOATS_AT_ONCE = 1 << 18
"""Entries of tokens per thread that are prepared at a time on a CPU: they stay in its cache."""


class QuantizedLinear(nn.Module):
    """x -> Q((x * before) R * after) W'^T + bias, W' on a grid, Q per token; stands for nn.Linear.

    Its weight exists as levels only. Tokens do not influence each other, so a stream gives what
    the whole clip gives.

    Source: QuantVGGT (arXiv 2509.21302); design in docs/quantization.md.
    """

    levels: Tensor | None
    step: Tensor
    bias: Tensor | None
    before: Tensor | None
    after: Tensor | None
    activation_clip: Tensor | None

    def __init__(self, in_features: int, out_features: int, spec: LinearSpec) -> None:
        """A layer without content; see `of`, and `file.place_empty_layers`."""
        super().__init__()
        self.in_features, self.out_features, self.spec = in_features, out_features, spec
        self.block: int | None = None
        """Channels that the online rotation mixes; None: no rotation."""
        self.dtype = torch.float32
        """Of the output."""
        self.arithmetic: Arithmetic = (
            kernels.REFERENCE if spec.rounds_tokens else kernels.WEIGHT_ONLY
        )
        self._onednn: OneDnnProduct | None = None
        for name in ("levels", "step", "bias", "before", "after", "activation_clip"):
            self.register_buffer(name, None)

    @classmethod
    def of(
        cls,
        weight: Float[Tensor, "out n"],
        bias: Float[Tensor, " out"] | None,
        spec: LinearSpec,
        transform: InputTransform | None = None,
        **options: Any,  # noqa: ANN401  -- those of `of_transformed`
    ) -> "QuantizedLinear":
        """Transform a weight, find its steps and round it.

        Args:
            transform: of the input; None: none.
            options: as in `of_transformed`.
        """
        transform = InputTransform() if transform is None else transform
        return cls.of_transformed(transform.of_weight(weight), bias, spec, transform, **options)

    @classmethod
    def of_transformed(
        cls,
        weight: Float[Tensor, "out n"],
        bias: Float[Tensor, " out"] | None,
        spec: LinearSpec,
        transform: InputTransform,
        *,
        rounding: Rounding = "nearest",
        hessian: Float[Tensor, "n n"] | None = None,
        weight_clip: ClipFactors | None = None,
        activation_clip: ClipFactors | None = None,
    ) -> "QuantizedLinear":
        """Find the steps of a weight that was transformed, and round it.

        Args:
            transform: what of it remains to be done with the input at run time.
            rounding: how the steps are found.
            hessian: X^T X of the transformed inputs; rounds in second order, see `second_order`.
            weight_clip: factors per output channel; exclude the search.
            activation_clip: factors of all tokens.

        Raises:
            ConfigError: if the weight is not finite, or bits and width do not fit together.
        """
        if not weight.isfinite().all():
            raise ConfigError("the weight is not finite: the checkpoint is damaged")
        layer = cls(weight.shape[1], len(weight), spec)
        grid = spec.weight_grid
        if weight_clip is not None:
            weight = clip_weights(weight, weight_clip)
        groups = in_groups(weight, spec.group)
        is_searching = rounding == "search" and weight_clip is None
        steps = search_steps(groups, grid) if is_searching else fit_weights(groups, grid)
        if hessian is None:
            levels = to_levels(groups, steps, grid).flatten(1)
        else:
            levels = second_order_levels(weight, steps, grid, hessian)
        layer.take_levels(levels.to(spec.level_dtype), steps.step)
        layer.bias = None if bias is None else bias.detach().clone()
        layer._take_transform(transform)
        if activation_clip is not None:
            layer.activation_clip = torch.stack(
                [activation_clip.high.flatten()[0], activation_clip.low.flatten()[0]]
            ).detach()
        return layer

    def take_levels(self, levels: Tensor, step: Float[Tensor, "out groups"]) -> None:
        """Set weight (out n, in the dtype of levels) and steps."""
        self.levels = pack_nibbles(levels) if self.spec.is_packed else levels
        self.step = step.float()

    def _take_transform(self, transform: InputTransform) -> None:
        """Signs and the factors before the rotation are one vector here."""
        before, rotation = transform.before, transform.rotation
        if rotation is not None:
            self.block = rotation.block
            if rotation.signs is not None:
                before = rotation.signs if before is None else before * rotation.signs
        self.before = None if before is None else before.float()
        self.after = None if transform.after is None else transform.after.float()

    @property
    def input_dtype(self) -> torch.dtype:
        """In which tokens are put on their grid: at least float32."""
        return torch.promote_types(self.dtype, torch.float32)

    @property
    def transform(self) -> InputTransform:
        """What happens to the input before its grid."""
        rotation = None if self.block is None else Rotation(None, self.block)
        return InputTransform(before=self.before, rotation=rotation, after=self.after)

    def weight_levels(self) -> Tensor:
        """The levels (out n), one per entry, whatever form they are kept in."""
        if self._onednn is not None:
            return self._onednn.weight()
        assert self.levels is not None, "a layer is filled before it is used"
        return unpack_nibbles(self.levels) if self.spec.is_packed else self.levels

    def weight_on_grid(self) -> Float[Tensor, "out n"]:
        """The values of the transformed weight, float32: for tests and reports."""
        groups = self.weight_levels().float().unflatten(1, (self.step.shape[1], -1))
        return from_levels(groups, Steps(self.step, torch.zeros_like(self.step))).flatten(1)

    def execute_with(
        self, wanted: str | None = None, *, require_real: bool = False
    ) -> "QuantizedLinear":
        """Pick the arithmetic for the device on which the layer is; see `arithmetic.pick`.

        Raises:
            ConfigError: if there is none; says why.
        """
        picked = pick(self.spec, self.step.device, wanted=wanted, require_real=require_real)
        if picked is kernels.INT8_ONEDNN and self._onednn is None:
            assert self.levels is not None, "a layer is filled before it is used"
            self._onednn = OneDnnProduct(self.levels, self.step[:, 0])
            self.levels = None  # held once, in the layout of the kernel
        elif picked is not kernels.INT8_ONEDNN:
            self._unpack()
        self.arithmetic = picked
        return self

    def _unpack(self) -> None:
        if self._onednn is not None:
            self.levels, self._onednn = self._onednn.weight(), None

    def forward(self, x: Float[Tensor, "*tokens n"]) -> Float[Tensor, "*tokens out"]:
        """Token by token, by the picked arithmetic."""
        rows = x.reshape(-1, self.in_features)
        rows = rows.to(self.input_dtype)
        if self.spec.rounds_tokens:
            levels, step = self._tokens(rows)
            y = self._rescale(self._product(levels), step)
        else:
            y = F.linear(self.transform.of_input(rows).to(self.dtype), *self._floats())
        return y.to(self.dtype).unflatten(0, x.shape[:-1])

    def reference(self, x: Float[Tensor, "*tokens n"]) -> Float[Tensor, "*tokens out"]:
        """The same in plain PyTorch and in the dtype of `x`, float64 included: the twin."""
        rows = self.transform.of_input(x.reshape(-1, self.in_features))
        if not self.spec.rounds_tokens:
            bias = None if self.bias is None else self.bias.to(x)
            return F.linear(rows, self.weight_on_grid().to(x), bias).unflatten(0, x.shape[:-1])
        levels, step = self._on_grid(rows)
        y = kernels.reference_product(levels, self.weight_levels(), self.step[:, 0])
        return self._rescale(y, step).unflatten(0, x.shape[:-1])

    def _tokens(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Levels (int8, 8-bit floats) and steps (rows 1) of the transformed tokens."""
        at_once = len(rows)
        if rows.device.type == "cpu":
            at_once = max(1, FLOATS_AT_ONCE // self.in_features) * torch.get_num_threads()
        if len(rows) <= at_once:
            levels, step = self._on_grid(self.transform.of_input(rows))
            return levels.to(self.spec.level_dtype), step
        levels = torch.empty_like(rows, dtype=self.spec.level_dtype)
        step = torch.empty_like(rows[:, :1])
        for i in range(0, len(rows), at_once):
            part = slice(i, i + at_once)
            levels[part], step[part] = self._on_grid(self.transform.of_input(rows[part]))
        return levels, step

    def _on_grid(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        clip = None if self.activation_clip is None else ClipFactors(*self.activation_clip.to(rows))
        return token_levels(rows, self.spec.token_grid, clip)

    def _product(self, levels: Tensor) -> Float[Tensor, "rows out"]:
        if self._onednn is not None:
            return self._onednn(levels)
        step = self.step[:, 0]
        if self.arithmetic is kernels.INT4_INT8_MM:
            assert self.levels is not None, "a layer is filled before it is used"
            return kernels.packed_product(levels, self.levels, step)
        if self.arithmetic is kernels.FP8_SCALED_MM:
            return kernels.float8_product(levels, self.weight_levels(), step)
        if self.arithmetic is kernels.INT8_MM:
            return kernels.integer_product(levels, self.weight_levels(), step)
        return kernels.reference_product(levels, self.weight_levels(), step)

    def _rescale(self, y: Tensor, step: Tensor) -> Tensor:
        """Sums times the tokens' steps, plus bias."""
        y = y.to(step.dtype)
        y.mul_(step)  # two roundings, as compiled code has them; `addcmul` may have one
        return y if self.bias is None else y.add_(self.bias.to(y))

    def _floats(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias for a floating-point product, alive for one call."""
        bias = None if self.bias is None else self.bias.to(self.dtype)
        groups = self.weight_levels().to(self.dtype).unflatten(1, (self.step.shape[1], -1))
        return groups.mul_(self.step.to(self.dtype)[..., None]).flatten(1), bias

    def _apply(self, fn: Any, recurse: bool = True) -> "QuantizedLinear":  # noqa: ANN401
        """Move to another device, where kernels are picked anew, or compute in another dtype.

        Steps and factors stay in float32.
        """
        was_onednn = self._onednn is not None
        self._unpack()
        device = self.step.device
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        super()._apply(lambda tensor: _keeping_dtype(fn, tensor), recurse)
        if self.step.device != device:
            self.execute_with()
        elif was_onednn:
            self.execute_with(self.arithmetic.name)
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:  # noqa: ANN401
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self._onednn is not None:
            destination[f"{prefix}levels"] = self._onednn.weight()

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: the blocked layout of a kernel can be neither.

        Nor can 8-bit floats be pickled; their bytes can.
        """
        state = {**self.__dict__, "arithmetic": self.arithmetic.name, "_onednn": None}
        if self._onednn is not None:
            state["_buffers"] = {**self._buffers, "levels": self._onednn.weight()}
        elif self.levels is not None:
            state["_buffers"] = {**self._buffers, "levels": self.levels.view(torch.uint8)}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the same arithmetic again, or what this machine has in its place."""
        super().__setstate__(state)
        if self.levels is not None and not self.spec.is_packed:
            self.levels = self.levels.view(self.spec.level_dtype)
        self.arithmetic = kernels.ARITHMETICS[state["arithmetic"]]
        if self.arithmetic is kernels.INT8_ONEDNN:
            self.execute_with()

    def extra_repr(self) -> str:
        """Width, bits and kernel."""
        return (
            f"{self.in_features}, {self.out_features}, {self.spec.name}, block={self.block}, "
            f"{self.arithmetic.name}"
        )


def _keeping_dtype(fn: Any, tensor: Tensor) -> Tensor:  # noqa: ANN401
    moved = fn(tensor)
    return moved if moved.dtype == tensor.dtype else moved.to(tensor.dtype)
