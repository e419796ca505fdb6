"""The learner on several ranks: each with all weights (DDP), or with a shard (FSDP2)."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel

from everview.model.layers.block import Block
from everview.training.objective.learner import Learner
from everview.training.objective.matching import NUM_GUIDED
from everview.training.recipe.settings import ComputeSettings
from everview.training.run.ranks import Ranks, whole


def spread(learner: Learner, compute: ComputeSettings, ranks: Ranks) -> nn.Module:
    """Prepare a learner for its ranks; called before the optimiser is made."""
    if ranks.count == 1:
        return learner
    if compute.parallel == "fsdp":
        return _sharded(learner)
    # heads that a step leaves out have no gradients
    return DistributedDataParallel(learner, find_unused_parameters=True)


def gradients_stay(module: nn.Module, *, is_last: bool) -> AbstractContextManager[Any]:
    """A context in which gradients are not exchanged, but for the last part of a step."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(is_last)
    if isinstance(module, DistributedDataParallel) and not is_last:
        return module.no_sync()
    return nullcontext()


def full_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """All parameters by name on the CPU, whatever the wrapper; on the first rank only if sharded.

    Every rank must call it.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(module, options=options)
    return {name: whole(cast(torch.Tensor, value)) for name, value in state.items()}


def _sharded(learner: Learner) -> nn.Module:
    """Blocks gather their weights when they run; all others are gathered with the learner.

    Guided blocks belong to the learner: their weights are used outside their own forward.
    """
    network = learner.network
    guided = network.config.layers[:NUM_GUIDED] if learner.guidance is not None else ()
    kept = {id(network.aggregator.global_blocks[i]) for i in guided}
    for module in list(network.modules()):
        if isinstance(module, Block) and id(module) not in kept:
            fully_shard(module)
            register_fsdp_forward_method(module, "causal")
    fully_shard(learner)
    return learner
