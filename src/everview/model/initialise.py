"""Initial values of a network that will be trained."""

import torch
from torch import nn

from everview.model.heads.update_transformer import PackedAttention

SMALL = 1e-6
"""Deviation of special tokens: present, so that they differ, but without a say at the start."""


def initialise(network: nn.Module, *, seed: int | None = None) -> None:
    """Fill all parameters; norms, biases and LayerScale keep the values of their construction.

    Linear layers: truncated normal with deviation 0.02. Convolutions: PyTorch's own rule.
    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02, generator=generator)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_uniform_(module.weight, a=5**0.5, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, PackedAttention):
                nn.init.xavier_uniform_(module.in_proj_weight, generator=generator)
        for name, parameter in network.named_parameters():
            leaf = name.rpartition(".")[2]
            if leaf in ("camera_token", "register_token", "cls_token", "register_tokens"):
                nn.init.normal_(parameter, std=SMALL, generator=generator)
            elif leaf in ("pos_embed", "virual_tracks", "query_ref_token"):
                nn.init.trunc_normal_(parameter, std=0.02, generator=generator)
