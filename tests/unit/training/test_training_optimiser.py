"""Which steps which parameters take."""

from dataclasses import dataclass, field

import pytest
import torch

from everview.errors import ConfigError
from everview.model.network import build
from everview.model.presets import presets
from everview.training.recipe.settings import OptimiserSettings
from everview.training.run.checkpoints import optimiser_state, set_optimiser_state
from everview.training.run.optimiser import NARROWEST, NARROWEST_KERNEL, make_optimiser
from everview.training.run.ranks import Ranks
from everview.training.run.trainer import Trainer

RATE = 1e-2


@pytest.fixture
def network():
    return build(presets["tiny"], seed=0).train()


def _stepped(network, matrices):
    """The optimiser after a step along random gradients, and how it changed each parameter."""
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    settings = OptimiserSettings(learning_rate=RATE, weight_decay=0, matrices=matrices)
    optimiser = make_optimiser(network, settings)
    generator = torch.Generator().manual_seed(0)
    for p in network.parameters():
        p.grad = torch.randn(p.shape, generator=generator) if p.requires_grad else None
    optimiser.step()
    return optimiser, {n: p.detach() - before[n] for n, p in network.named_parameters()}


def _weights(network, *kinds):
    return {f"{n}.weight" for n, m in network.named_modules() if isinstance(m, kinds)}


def test_muon_turns_the_steps_of_wide_layers(network):
    optimiser, changes = _stepped(network, "muon")
    rows = {n: change.flatten(1) for n, change in changes.items() if change.ndim > 1}
    linear = {n for n in _weights(network, torch.nn.Linear) if min(rows[n].shape) >= NARROWEST}
    assert len(linear) >= 9  # the camera head; the trunk of `tiny` is narrower
    kernels = {
        n for n in _weights(network, torch.nn.Conv2d, torch.nn.ConvTranspose2d)
        if min(rows[n].shape) >= NARROWEST_KERNEL
    }  # fmt: skip
    assert {changes[n].shape[2:] for n in kernels} >= {(3, 3), (14, 14)}
    moments = optimiser_state(optimiser, network)
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            assert name not in moments
        elif name in linear | kernels:
            assert moments[name].keys() == {"momentum_buffer"}
            sizes = torch.linalg.svdvals(rows[name]) / (0.2 * RATE * max(rows[name].shape) ** 0.5)
            assert all(0.5 < float(size) < 1.5 for size in sizes), name
        else:
            assert moments[name].keys() >= {"exp_avg", "exp_avg_sq"}
            assert float(changes[name].abs().max()) == pytest.approx(RATE, rel=1e-2), name


def test_steps_of_both_kinds_are_of_one_size(network):
    other = build(presets["tiny"], seed=0).train()
    _, muon = _stepped(network, "muon")
    _, adamw = _stepped(other, "adamw")
    for name, parameter in network.named_parameters():
        if parameter.requires_grad and parameter.ndim == 2:
            ratio = float(muon[name].square().mean().sqrt() / adamw[name].square().mean().sqrt())
            is_wide = min(parameter.shape) >= NARROWEST and not name.endswith("in_proj_weight")
            low, high = (0.1, 0.5) if is_wide else (0.99, 1.01)
            assert low < ratio < high, name


def test_gradients_of_kernels_are_dropped_and_those_without_stay(network):
    optimiser, _ = _stepped(network, "muon")
    optimiser.zero_grad()
    assert all(p.grad is None for p in network.parameters())
    before = [p.detach().clone() for p in network.parameters()]
    optimiser.step()
    assert all(torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))


def test_moments_of_another_optimiser_are_left_aside(network, caplog):
    adamw, _ = _stepped(network, "adamw")
    stored = optimiser_state(adamw, network)
    muon = make_optimiser(network, OptimiserSettings(matrices="muon"))
    set_optimiser_state(muon, network, stored)
    kept = optimiser_state(muon, network)
    assert kept
    assert all(state.keys() >= {"exp_avg", "exp_avg_sq"} for state in kept.values())
    turned = stored.keys() - kept.keys()
    assert f"{len(turned)} parameters had moments of another optimiser" in caplog.text
    set_optimiser_state(muon, network, optimiser_state(_stepped(network, "muon")[0], network))
    assert optimiser_state(muon, network).keys() == stored.keys()


def test_a_rate_holds_for_both(network):
    optimiser, _ = _stepped(network, "muon")
    before = [p.detach().clone() for p in network.parameters()]
    optimiser.set_rate(0.0)
    optimiser.step()
    assert all(torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))


@dataclass(frozen=True, kw_only=True)
class _Together(Ranks):
    """Ranks of one process, whose optimisers step one after the other and share at the end."""

    shared: dict = field(default_factory=dict)

    def share(self, tensors, *, source):
        self.shared[source] = tensors


def test_ranks_share_the_work_of_muon(network):
    """To the bit what one does alone, momentum included, and about half the work each."""
    settings = OptimiserSettings(learning_rate=RATE, matrices="muon")
    networks = [build(presets["tiny"], seed=0).train() for _ in range(2)]
    ranks = [_Together(rank=rank, count=2) for rank in range(2)]
    optimisers = [make_optimiser(n, settings, r) for n, r in zip(networks, ranks, strict=True)]
    alone = make_optimiser(network, settings)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for same in zip(*(n.parameters() for n in (network, *networks)), strict=True):
            gradient = torch.randn(same[0].shape, generator=generator)
            for p in same:
                p.grad = gradient.clone() if p.requires_grad else None
        for optimiser in (alone, *optimisers):
            optimiser.step()
        for source, rank in enumerate(ranks):
            other = ranks[1 - source]
            for ours, theirs in zip(rank.shared[source], other.shared[source], strict=True):
                assert not torch.equal(ours, theirs)  # the other has not turned it
                theirs.detach().copy_(ours)
    moments = optimiser_state(alone, network)
    for one, optimiser in zip(networks, optimisers, strict=True):
        for (name, p), expected in zip(
            one.named_parameters(), network.parameters(), strict=True
        ):  # fmt: skip
            assert torch.equal(p, expected), name
        for name, state in optimiser_state(optimiser, one).items():
            assert all(torch.equal(v, moments[name][k]) for k, v in state.items()), name
    work = [sum(p.numel() * min(p.shape) for p in ranks[0].shared[rank]) for rank in range(2)]
    assert max(work) < 0.55 * sum(work)


def test_shards_are_refused(small_recipe):
    with pytest.raises(ConfigError, match="parallel=ddp"):
        small_recipe("optimiser.matrices=muon", "compute.parallel=fsdp")


def test_a_run_with_muon_goes_on_to_the_bit(tmp_path, small_recipe):
    recipe = small_recipe("optimiser.matrices=muon", "schedule.length=4", "run.checkpoint_steps=2")
    whole = Trainer(recipe, tmp_path / "whole")
    for _ in whole.run():
        pass
    cut = Trainer(recipe, tmp_path / "cut")
    for line in cut.run():
        cut.wants_stop = line["step"] == 2
    resumed = Trainer(recipe, tmp_path / "cut", resume=True)
    for _ in resumed.run():
        pass
    pairs = zip(whole.learner.parameters(), resumed.learner.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
