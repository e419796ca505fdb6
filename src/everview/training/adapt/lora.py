"""Low-rank updates of linear layers: a few numbers learn beside frozen weights."""

import math
from collections.abc import Mapping
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from everview.errors import ConfigError
from everview.training.adapt.freezing import matches
from everview.training.recipe.settings import LoraSettings

DOWN, UP = "lora_down", "lora_up"


class LoraLinear(nn.Linear):
    """y = W x + b + (alpha / rank) U D x: W and b as before, D and U learn, U begins at 0.

    A linear layer in every other respect, under the same names, so that nothing that uses it has
    to know.

    Source: LoRA (arXiv 2106.09685) Eq. 3.
    """

    def __init__(self, linear: nn.Linear, settings: LoraSettings, seed: int) -> None:
        """Take over the parameters of a linear layer."""
        super().__init__(1, 1, device="meta")
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.factor = settings.alpha / settings.rank
        generator = torch.Generator().manual_seed(seed)
        down = torch.empty(settings.rank, linear.in_features)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
        device = linear.weight.device
        self.lora_down = nn.Parameter(down.to(device))
        self.lora_up = nn.Parameter(torch.zeros(linear.out_features, settings.rank, device=device))

    def forward(self, x: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch out"]:
        """Both parts, in the dtype of `x`."""
        inner = F.linear(x, self.lora_down.to(x.dtype))
        update = F.linear(inner, self.lora_up.to(x.dtype))
        return F.linear(x, self.weight, self.bias) + self.factor * update


def add_lora(network: nn.Module, settings: LoraSettings, *, seed: int) -> list[str]:
    """Freeze a network and give the layers that fit a pattern low-rank updates.

    Returns:
        Names of these layers.

    Raises:
        ConfigError: if no linear layer fits.
    """
    chosen = [
        name
        for name, module in network.named_modules()
        if type(module) is nn.Linear and matches(name, settings.layers)
    ]
    if not chosen:
        raise ConfigError(
            f"network.lora.layers {settings.layers} fits no linear layer; names are such as "
            "aggregator.global_blocks.0.attn.qkv"
        )
    network.requires_grad_(False)
    for number, name in enumerate(chosen):
        owner, _, leaf = name.rpartition(".")
        parent = network.get_submodule(owner)
        linear = cast(nn.Linear, getattr(parent, leaf))
        setattr(parent, leaf, LoraLinear(linear, settings, seed=seed + number))
    return chosen


def merged(values: Mapping[str, Tensor], settings: LoraSettings) -> dict[str, Tensor]:
    """Parameters with the updates added to the weights, under the names of a plain network.

    Args:
        values: all parameters by name.
        settings: as given to `add_lora`.
    """
    result = {}
    for name, value in values.items():
        owner, _, leaf = name.rpartition(".")
        if leaf in (DOWN, UP):
            continue
        if leaf == "weight" and f"{owner}.{UP}" in values:
            up, down = values[f"{owner}.{UP}"].float(), values[f"{owner}.{DOWN}"].float()
            update = settings.alpha / settings.rank * up @ down
            value = (value.float() + update).to(torch.float32)  # noqa: PLW2901
        result[name] = value
    return result
