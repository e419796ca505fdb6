"""InfiniteVGGT's memory in the published order of operations, for parity."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from everview.errors import ConfigError
from everview.memory.layer_memory import LayerMemory, Scratch

if TYPE_CHECKING:
    from everview.memory.policies.bounded import Bounded

TEMPERATURE = 0.5
SMALLEST_NORM = 1e-12


def layer_budgets(scores: Float[Tensor, " layers"], total: int) -> list[int]:
    """Tokens of each layer: more where keys differ more, in all at most `total`.

    Args:
        scores: mean similarity of each layer's keys to their mean, in [0, 1].
        total: tokens of all layers; below 0 counts as 0.

    Source: InfiniteVGGT (arXiv 2601.02281) Sec. 3.3, with the temperature of the released code.
    """
    shares = ((1 - scores.float()) / TEMPERATURE).softmax(dim=0)
    return [int(tokens) for tokens in (max(total, 0) * shares).tolist()]


def safe_budget(anchors: int, layers: int) -> int:
    """Tokens per layer with which every layer's share is above its anchors, whatever the scores.

    Scores are in [0, 1], so a layer has at least 1 of 1 + (layers - 1) e^2 parts
    (rolling_memory.md 4.2).
    """
    return math.ceil((anchors + 1) * (1 + (layers - 1) * math.exp(1 / TEMPERATURE)) / layers)


def survivors(
    keys: Float[Tensor, "b h n d"], *, anchors: int, budget: int
) -> tuple[Int[Tensor, "b h budget"], Float[Tensor, ""]]:
    """Which tokens stay, ascending, and how alike all candidates are.

    Args:
        keys: of all tokens, anchors first.
        anchors: tokens at the beginning that always stay.
        budget: tokens that stay, anchors included.

    Source: InfiniteVGGT Sec. 3.2.
    """
    candidates = keys[:, :, anchors:].float()
    unit = candidates / candidates.norm(dim=-1, keepdim=True).clamp_min(SMALLEST_NORM)
    mean = unit.mean(dim=2, keepdim=True)
    similarity = (unit * mean).sum(dim=-1)  # b h candidates
    kept = similarity.topk(budget - anchors, dim=-1, largest=False).indices.sort(dim=-1).values
    first = torch.arange(anchors, device=keys.device).expand(*keys.shape[:2], anchors)
    return torch.cat([first, kept + anchors], dim=-1), similarity.mean()


class ReferenceMemory(LayerMemory):
    """Forgets before attention, from the past and the newest frame alike; copies what stays.

    Kept plain on purpose: it is what `SlotMemory` is compared with, in results and in speed.
    """

    def __init__(self, policy: "Bounded") -> None:
        super().__init__()
        self.policy = policy
        self.budget: int | None = None
        """Tokens after the next frame; set before each frame by `share_budgets`."""
        self.layers = 1
        """Layers that share a budget."""
        self.num_anchors = 0
        self.score: Float[Tensor, ""] | None = None
        self._before: tuple[int, dict[str, Tensor], Tensor | None] | None = None
        self._arrived = self._new = 0
        self._decided: tuple[int, int] | None = None

    def append(self, keys: Float[Tensor, "b h n d"], values: Float[Tensor, "b h n d"]) -> None:
        """See LayerMemory.append.

        Raises:
            ConfigError: if scores leave this layer less than its anchors.
        """
        if self.budget is not None and self.budget < self.num_anchors:
            safe = safe_budget(self.num_anchors, self.layers)
            raise ConfigError(
                f"memory policy {self.policy.text!r} leaves a layer {self.budget} tokens, but the "
                f"{self.num_anchors} of the first frame always stay: write "
                f"{self.policy.name}:tokens={safe},reference=true, with which no layer gets less"
            )
        if not self._held:
            self.policy.tokens_for(keys.shape[2])
        self._before, self._new = (self.num_tokens, self._held, self.score), keys.shape[2]
        if self._held:
            keys = torch.cat([self._held["keys"], keys], dim=2)
            values = torch.cat([self._held["values"], values], dim=2)
        if self.budget is not None and keys.shape[2] > self.budget:
            index, score = survivors(keys, anchors=self.num_anchors, budget=self.budget)
            index = index[..., None].expand(-1, -1, -1, keys.shape[3])
            keys, values, self.score = keys.gather(2, index), values.gather(2, index), score
        self._held = {"keys": keys.contiguous(), "values": values.contiguous()}
        self.num_tokens = keys.shape[2]

    def decide(self, scratch: Scratch) -> None:  # noqa: ARG002  -- it has forgotten already
        """See LayerMemory.decide."""
        if self._before is not None:
            self._decided = self.num_anchors or self._new, self._arrived + self._new

    def finish(self) -> None:
        """See LayerMemory.finish."""
        if self._decided is None:
            return
        self.num_anchors, self._arrived = self._decided
        self._before = self._decided = None

    def truncate(self, num_tokens: int) -> None:
        """See LayerMemory.truncate."""
        if self._before is not None:
            self.num_tokens, self._held, self.score = self._before
            self._before = self._decided = None
        assert self.num_tokens == num_tokens, "only the last step can be undone"

    @property
    def num_evicted(self) -> int:
        """See LayerMemory.num_evicted."""
        return self._arrived - self.num_tokens

    def tensors(self) -> dict[str, Tensor]:
        """See LayerMemory.tensors."""
        held = super().tensors() | {"numbers": torch.tensor([self.num_anchors, self._arrived])}
        return held if self.score is None else held | {"score": self.score}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """See LayerMemory.restore."""
        self.__init__(self.policy)  # type: ignore[misc]
        if "keys" not in tensors:
            return
        self._held = {name: tensors[name] for name in ("keys", "values")}
        self.num_tokens = tensors["keys"].shape[2]
        self.num_anchors, self._arrived = (int(number) for number in tensors["numbers"])
        self.score = tensors.get("score")


def share_budgets(memories: list[ReferenceMemory], tokens: int) -> None:
    """Set the budgets of all layers for the next frame from the scores of the last one.

    Args:
        memories: one per layer.
        tokens: of all layers together.
    """
    zero = torch.zeros(())
    scores = [zero if memory.score is None else memory.score.cpu() for memory in memories]
    for memory, budget in zip(memories, layer_budgets(torch.stack(scores), tokens), strict=True):
        memory.budget, memory.layers = budget, len(memories)
