"""Initial values of a network that will be trained."""

import torch
from torch import Tensor, nn

from everview.model.encoder import PatchEncoder
from everview.model.heads.camera import CameraHead
from everview.model.heads.update_transformer import PackedAttention
from everview.model.layers.block import Attention

POSITION_AMPLITUDE = 2.0
"""Of the position embedding: larger than the patch tokens to which it is added, so that attention
to a match tells where it is (docs/decisions/0005)."""

FIRST_ESTIMATE = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.9, 1.1)
"""What the camera head says at the start: the identity, and a usual field of view."""


def initialise(network: nn.Module, *, seed: int | None = None) -> None:
    """Fill all parameters; norms and LayerScale keep the values of their construction.

    Linear layers: truncated normal with deviation fan_in ** -0.5. Convolutions: PyTorch's own rule.
    Four choices give a network that must learn from few clips a start: special tokens are as large
    as patch tokens (published: 1e-6), so that the first frame can be told from the others at once;
    positions are sines and cosines instead of noise; keys begin equal to queries, so that attention
    goes to what looks alike; and the camera head begins at the identity.
    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            _fill_weights(module, generator)
        for name, parameter in network.named_parameters():
            leaf = name.rpartition(".")[2]
            if leaf in ("camera_token", "register_token", "cls_token", "register_tokens"):
                nn.init.normal_(parameter, generator=generator)
            elif leaf in ("virual_tracks", "query_ref_token"):
                nn.init.trunc_normal_(parameter, std=0.02, generator=generator)
        for module in network.modules():
            _give_a_start(module)


def _fill_weights(module: nn.Module, generator: torch.Generator | None) -> None:
    if isinstance(module, nn.Linear):
        deviation = module.in_features**-0.5
        nn.init.trunc_normal_(
            module.weight, std=deviation, a=-2 * deviation, b=2 * deviation, generator=generator
        )
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_uniform_(module.weight, a=5**0.5, generator=generator)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, PackedAttention):
        nn.init.xavier_uniform_(module.in_proj_weight, generator=generator)


def _give_a_start(module: nn.Module) -> None:
    if isinstance(module, Attention) and module.qk_norm:
        dim = module.qkv.in_features
        module.qkv.weight[dim : 2 * dim] = module.qkv.weight[:dim]
    elif isinstance(module, PatchEncoder):
        channels = module.pos_embed.shape[-1]
        waves = _position_waves(module.base_grid, channels, like=module.pos_embed)
        module.pos_embed[0, 1:] = POSITION_AMPLITUDE * waves
    elif isinstance(module, CameraHead):
        last = module.pose_branch.fc2
        last.weight.mul_(0.1)
        last.bias.copy_(torch.tensor(FIRST_ESTIMATE))


def _position_waves(side: int, channels: int, *, like: Tensor) -> Tensor:
    """Sines and cosines of row and column of a square grid, (side side) channels."""
    quarter = (channels + 3) // 4
    at = (torch.arange(side, device=like.device) + 0.5) / side  # 0 to 1 over the image
    frequencies = torch.pi * torch.logspace(0, 1, quarter, base=side, device=like.device)
    phase = at[:, None] * frequencies / 2
    waves = torch.cat([phase.sin(), phase.cos()], dim=-1)  # side (2 quarter)
    rows = waves[:, None].expand(side, side, -1)
    columns = waves[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)[:, :channels].to(like.dtype)
