from dataclasses import replace

import pytest
import torch

import everview
from everview.errors import ConfigError
from everview.model.network import build
from everview.model.presets import presets
from everview.training.adapt.activation_checkpoints import checkpoint_activations
from everview.training.adapt.freezing import check_trainable, freeze, num_trainable
from everview.training.adapt.lora import LoraLinear, add_lora, merged
from everview.training.adapt.memory import estimate_memory
from everview.training.objective.learner import Learner
from everview.training.recipe.settings import LoraSettings
from everview.training.run.folder import save_model
from everview.training.run.precision import attention_of, autocast_of
from everview.training.run.setup import make_network

CPU = torch.device("cpu")


@pytest.fixture
def network():
    return build(presets["tiny"], seed=0).train()


def _gradients(network, recipe, batch):
    learner = Learner(network, recipe)
    torch.manual_seed(0)
    learner(batch, None)[0].backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def test_what_is_frozen_gets_no_gradient_and_is_not_counted(network, small_batch, small_recipe):
    everything = num_trainable(network)
    frozen = sum(p.numel() for p in network.aggregator.patch_embed.parameters() if p.requires_grad)
    frozen += network.aggregator.camera_token.numel()
    freeze(network, ["aggregator.patch_embed.*", "aggregator.camera_token"])
    assert num_trainable(network) == everything - frozen
    names = _gradients(network, small_recipe(), small_batch).keys()
    assert not any("patch_embed" in name or "camera_token" in name for name in names)
    assert any("global_blocks" in name for name in names)


def test_a_pattern_that_freezes_nothing_is_refused(network):
    with pytest.raises(ConfigError, match=r"'agregator\.\*' fits no parameter; names are such as"):
        freeze(network, ["agregator.*"])


def test_the_count_of_what_learns_is_checked(network):
    check_trainable(network, num_trainable(network))
    with pytest.raises(ConfigError, match="is 5, but 529,732 numbers learn"):
        check_trainable(network, 5)
    freeze(network, ["*"])
    with pytest.raises(ConfigError, match="nothing to learn"):
        check_trainable(network, None)


def test_published_freezing_leaves_tokens_and_encoder(small_recipe):
    recipe = small_recipe(
        "network.frozen=['aggregator.patch_embed.*','aggregator.camera_token',"
        "'aggregator.register_token']"
    )
    network = make_network(recipe, CPU)
    frozen = [name for name, p in network.named_parameters() if not p.requires_grad]
    assert "aggregator.camera_token" in frozen
    assert not any("blocks" in name for name in frozen if "patch_embed" not in name)


def test_low_rank_updates_begin_at_nothing_and_only_they_learn(network, small_batch, small_recipe):
    images = small_batch.images
    before = network.predict(images).depth
    layers = add_lora(network, LoraSettings(rank=2), seed=0)
    assert len(layers) == 2 * 4 * 4  # frame and global blocks, four linear layers each
    torch.testing.assert_close(network.predict(images).depth, before)
    names = _gradients(network, small_recipe(), small_batch).keys()
    assert names == {f"{layer}.{part}" for layer in layers for part in ("lora_down", "lora_up")}


def test_merged_updates_give_the_same_network_without_them(network, small_batch):
    settings = LoraSettings(rank=3, alpha=6.0)
    add_lora(network, settings, seed=0)
    for module in network.modules():
        if isinstance(module, LoraLinear):
            torch.nn.init.normal_(module.lora_up, std=0.1)
    expected = network.predict(small_batch.images).points
    plain = build(presets["tiny"])
    plain.load_state_dict(merged(network.state_dict(), settings))
    torch.testing.assert_close(
        plain.predict(small_batch.images).points, expected, rtol=1e-3, atol=1e-4
    )


def test_updates_of_no_layer_are_refused(network):
    with pytest.raises(ConfigError, match="fits no linear layer"):
        add_lora(network, LoraSettings(layers=("aggregator.*.qkw",)), seed=0)


def test_a_run_with_updates_saves_a_model_that_loads(tmp_path, small_recipe):
    recipe = small_recipe("network.lora.rank=2", "network.frozen_precision=bfloat16")
    network = make_network(recipe, CPU)
    assert network.precision == torch.bfloat16
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    save_model(tmp_path / "model", state, recipe, steps=3)
    loaded = everview.load(tmp_path / "model", device="cpu")
    assert loaded.config == presets["tiny"]
    with pytest.raises(ConfigError, match=r"is for networks with network\.lora"):
        make_network(small_recipe("network.frozen_precision=bfloat16"), CPU)


@pytest.mark.parametrize("attention", ["causal", "global"])
def test_activations_computed_again_give_the_same_gradients(attention, small_batch, small_recipe):
    found = []
    for checkpointed in (False, True):
        network = build(replace(presets["tiny"], attention=attention), seed=0).train()
        if checkpointed:
            checkpoint_activations(network)
        found.append(_gradients(network, small_recipe(), small_batch))
    plain, again = found
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=0, atol=0, msg=name)


def _kept_bytes(learner, batch, compute):
    """What autograd keeps for the way back, without parameters."""
    own = {p.untyped_storage().data_ptr() for p in learner.parameters()}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        attention_of(compute, CPU),
        autocast_of(compute, CPU),
    ):
        total, _ = learner(batch, None)
    assert total.requires_grad
    return sum(size for size, _ in found.values())


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("stages.0.dense_images=null",),
        ("stages.0.dense_images=0", "stages.0.track_every=0"),
        ("compute.precision=bfloat16", "stages.0.dense_images=null"),
        ("network.preset=mini", "data.tracked_points=32"),
        ("network.preset=mini", "compute.precision=bfloat16"),
        ("network.preset=mini", "compute.precision=bfloat16", "network.attention=global"),
        (
            "network.preset=mini",
            "compute.precision=bfloat16",
            "stages.0.images=24",
            "stages.0.frames=[24,24]",
            "stages.0.track_every=0",
        ),
    ],
)
def test_the_forecast_of_activations_is_within_a_factor_of_what_is_kept(overrides, small_recipe):
    from everview.training.feed.batch import Request
    from everview.training.feed.procedural import ProceduralSource

    recipe = small_recipe(
        "data.heights=[70]", "data.width=98", "stages.0.images=6", "stages.0.frames=[3,3]",
        "data.tracked_points=16", *overrides,
    )  # fmt: skip
    batch = ProceduralSource(recipe).batch(Request(step=0, stage=0))
    learner = Learner(make_network(recipe, CPU), recipe)
    kept = _kept_bytes(learner, batch, recipe.compute)
    forecast = estimate_memory(learner, learner.network.config, recipe).activations
    assert kept / 1.3 < forecast < 1.3 * kept


def test_the_forecast_counts_what_learns_and_what_is_sharded(small_recipe):
    recipe = small_recipe()
    learner = Learner(make_network(recipe, CPU), recipe)
    config = learner.network.config
    need = estimate_memory(learner, config, recipe)
    count = num_trainable(learner)
    assert need.gradients == need.average == need.optimiser // 2 == 4 * count
    assert need.total > need.parameters + 4 * need.gradients
    sharded = estimate_memory(learner, config, small_recipe("compute.parallel=fsdp"), num_ranks=2)
    assert sharded.gradients == need.gradients // 2
    assert sharded.activations < need.activations
    assert need.teacher == 0
    taught = estimate_memory(learner, config, recipe, teacher_parameters=1000)
    assert taught.teacher > 1000
    found = [
        estimate_memory(learner, config, small_recipe("stages.0.track_every=0", again)).activations
        for again in ("run.seed=0", "compute.checkpoint_activations=true")
    ]
    assert found[1] < 0.7 * found[0]
    lora = small_recipe("network.lora.rank=2")
    few = Learner(make_network(lora, CPU), lora)
    assert estimate_memory(few, config, lora).optimiser < 0.2 * need.optimiser
