"""Copies with outliers: the same function, other activations."""

import pytest
import torch

from everview.quantization import quantize
from everview.quantization.outliers import LARGE_CHANNELS, token_sizes, with_outliers
from everview.weights.load import load
from everview.world.clip import sequence, training_seed


@pytest.fixture(scope="module")
def network():
    return load("mini", device="cpu")


@pytest.fixture(scope="module")
def clips():
    return [sequence(training_seed(i), 3, size=(112, 84)).images for i in range(4)]


def said(network, images):
    with torch.no_grad():
        found = network(images, query_points=torch.tensor([[40.0, 50.0], [20.0, 30.0]]))
    return [found.depth, found.pose_encoding, found.points, found.tracks]


@pytest.mark.parametrize("kinds", [["channels"], ["tokens"], ["channels", "tokens"]])
def test_the_function_is_that_of_the_network(network, clips, kinds):
    exact = network.double()
    images = sequence(training_seed(9), 3, size=(112, 84)).images.double()
    made = with_outliers(exact, [clip.double() for clip in clips], kinds)
    for found, expected in zip(said(made, images), said(exact, images), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


def test_special_tokens_are_large_where_a_norm_is_in_front(network, clips):
    network = network.float()
    before = token_sizes(network, clips)
    made = with_outliers(network, clips, ["tokens"])
    after = token_sizes(made, clips)
    behind_norm = [name for name in after if name.endswith(("qkv", "fc1"))]
    assert max(before[name] for name in behind_norm) < 1.5
    assert min(after[name] for name in behind_norm) > 3
    for name in after.keys() - behind_norm:
        assert after[name] == pytest.approx(before[name], rel=1e-3), name


def test_patches_keep_their_size_and_few_channels_are_large(network, clips):
    made = with_outliers(network.float(), clips, ["tokens"])
    sizes = []
    made.aggregator.frame_blocks[2].mlp.fc1.register_forward_pre_hook(
        lambda _module, inputs: sizes.append(inputs[0].abs())
    )
    made.aggregator(clips[0][None])
    patches = sizes[0][:, 5:]
    assert patches.amax() < 3 * patches.amax(-1).median()
    assert (sizes[0][:, :5].argmax(-1) < LARGE_CHANNELS).all()


def test_channels_are_unequal(network, clips):
    made = with_outliers(network.float(), clips, ["channels"])
    weight = made.aggregator.frame_blocks[0].norm1.weight.abs()
    assert weight.amax() / weight.median() > 10


def test_large_tokens_hurt_poses_when_tokens_are_only_rounded(network, clips):
    network = network.float()

    def poses(one):
        with torch.no_grad():
            tokens = one.aggregator(clips[0][None])[one.config.aggregator.depth - 1]
            return one.camera_head(tokens[:, :, 0])[-1]

    expected = poses(network)
    errors = [
        float((poses(quantize(one, "w8a8", method="nearest")) - expected).norm())
        for one in (network, with_outliers(network, clips, ["channels", "tokens"]))
    ]
    assert errors[1] > 10 * errors[0]
