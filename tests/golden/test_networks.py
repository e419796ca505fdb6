"""Both networks against numbers of the reference implementations (README.md beside this file)."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from everview.geometry.cameras import (
    camera_from_pose_encoding,
    points_from_depth,
    pose_encoding_from_camera,
)
from everview.geometry.rotations import invert_rigid, quaternion_from_matrix
from everview.model.heads.correlation import CorrelationPyramid, sample_bilinear
from everview.model.heads.dense import _activate, uv_embedding
from everview.model.heads.tracks import motion_embedding, position_embedding
from everview.model.layers.rope import rotary_tables
from everview.model.network import build

GOLDEN = Path(__file__).parent
FOLDERS = ["vggt_tiny", "streamvggt_tiny"]
CASES = [("vggt_tiny", c) for c in "abc"] + [("streamvggt_tiny", c) for c in "ac"]


@cache
def load(folder):
    root = GOLDEN / folder
    network = build(json.loads((root / "config.json").read_text()))
    weights = load_file(root / "weights.safetensors")
    network.load_state_dict({name: w.float() for name, w in weights.items()}, strict=True)
    tolerances = json.loads((root / "tolerances.json").read_text())
    return (network, load_file(root / "inputs.safetensors"),
            load_file(root / "outputs.safetensors"), tolerances)  # fmt: skip


def compare(folder, key, got):
    _, _, outputs, tolerances = load(folder)
    tolerance = tolerances.get(key, {"atol": 1e-4, "rtol": 1e-4})
    torch.testing.assert_close(
        got.detach().reshape(outputs[key].shape),
        outputs[key],
        rtol=tolerance["rtol"],
        atol=tolerance["atol"],
        msg=lambda text: f"{folder} {key}: {text}",
    )


def inputs_of(folder, case):
    _, inputs, _, _ = load(folder)
    return inputs[f"{case}.images_u8"].float() / 255, inputs.get(f"{case}.query_points")


@pytest.mark.parametrize(("folder", "case"), CASES)
def test_the_network_gives_what_the_reference_gives(folder, case):
    network = load(folder)[0]
    images, queries = inputs_of(folder, case)
    pred = network(images, query_points=queries)
    values = {
        "pose_enc": pred.pose_encoding,
        "pose_enc_iters": pred.pose_encoding_iterations,
        "extrinsics": pred.camera_from_world[..., :3, :],
        "intrinsics": pred.intrinsics,
        "depth": pred.depth,
        "depth_conf": pred.depth_confidence,
        "world_points": pred.points,
        "world_points_conf": pred.points_confidence,
    }
    if queries is not None:
        values |= {"track": pred.tracks, "vis": pred.visibility, "conf": pred.track_confidence}
    for name, value in values.items():
        compare(folder, f"{case}.{name}", value)


@pytest.mark.parametrize(("folder", "case"), [c for c in CASES if c[1] != "b"])
def test_every_round_of_the_tracker_gives_what_the_reference_gives(folder, case):
    network, _, outputs, tolerances = load(folder)
    got = network.predict(*inputs_of(folder, case)).track_iterations
    expected = outputs[f"{case}.track_iters"]
    bounds = tolerances[f"{case}.track_iters"]["atol_per_iteration"]
    for one, other, atol in zip(got, expected, bounds, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=atol)


@pytest.mark.parametrize(("folder", "case"), CASES)
def test_patch_tokens_are_those_of_the_reference(folder, case):
    network = load(folder)[0]
    seen = watch(network, ["aggregator.patch_embed.norm"])
    network(inputs_of(folder, case)[0])
    compare(folder, f"{case}.patch_tokens", seen["aggregator.patch_embed.norm"][0])


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_encoders_stages_are_those_of_the_reference(folder):
    network = load(folder)[0]
    encoder = network.aggregator.patch_embed
    images = inputs_of(folder, "a")[0][:, 0]
    normalised = (images - network.aggregator.image_mean) / network.aggregator.image_deviation
    tokens = encoder.tokens_in(normalised, (4, 6))
    compare(folder, "a.dino.patch_embed", encoder.patch_embed(normalised))
    compare(folder, "a.dino.pos_embed_resized", encoder.position_embedding((4, 6)))
    compare(folder, "a.dino.tokens_in", tokens)
    compare(folder, "a.dino.block0", encoder.blocks[0](tokens))


@pytest.mark.parametrize("folder", FOLDERS)
def test_queries_and_keys_are_those_of_the_reference(folder):
    network, _, outputs, _ = load(folder)
    agg = network.aggregator
    names = ["aggregator.frame_blocks.0.norm1", "aggregator.global_blocks.0.norm1"]
    seen = watch(network, names)
    network(inputs_of(folder, "a")[0])
    tables = rotary_tables(
        (4, 6), num_special=5, head_dim=agg.head_dim, base=100.0, like=torch.zeros(1)
    )
    for kind, name, block in zip(
        ("frame0", "global0"), names, (agg.frame_blocks[0], agg.global_blocks[0]), strict=True
    ):
        x = seen[name][0][:1] if kind == "frame0" else seen[name][0]
        frames = 1 if kind == "frame0" else 4
        for stage, rotary in (("before", None), ("after", tables)):
            q, k, _ = block.attn.project(x, rotary, frames)
            compare(folder, f"a.{kind}.q_{stage}_rope", q)
            compare(folder, f"a.{kind}.k_{stage}_rope", k)
    y, x = outputs["a.rope.positions"].float().unbind(-1)
    torch.testing.assert_close(tables[0][:, 0], y.cos())
    torch.testing.assert_close(tables[0][:, agg.head_dim // 2], x.cos())


@pytest.mark.parametrize("folder", FOLDERS)
def test_aggregated_layers_are_those_of_the_reference(folder):
    network = load(folder)[0]
    tokens = network.aggregator(inputs_of(folder, "a")[0])
    for layer in range(4):
        compare(folder, f"a.agg.{layer}", tokens[layer])


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_stages_of_the_camera_head_are_those_of_the_reference(folder):
    network = load(folder)[0]
    seen = watch(network, ["camera_head.token_norm", "camera_head.trunk_norm"])
    inputs = []
    network.camera_head.trunk_norm.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    network(inputs_of(folder, "a")[0])
    compare(folder, "a.camera.token_norm", seen["camera_head.token_norm"][0])
    compare(folder, "a.camera.trunk_iter0", inputs[0])


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_stages_of_the_depth_head_are_those_of_the_reference(folder):
    network = load(folder)[0]
    scratch = "depth_head.scratch."
    stages = {
        "depth_head.projects.0": "projected.0",
        scratch + "refinenet4": "refinenet4",
        scratch + "refinenet3.resConfUnit1": "refinenet3_rcu1",
        scratch + "output_conv1": "output_conv1",
        scratch + "output_conv2": "logits",
    } | {f"depth_head.resize_layers.{k}": f"resized.{k}" for k in range(4)}
    seen = watch(network, list(stages))
    network(inputs_of(folder, "a")[0])
    for module, key in stages.items():
        compare(folder, f"a.depth.{key}", seen[module][0][:1])


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_stages_of_the_tracker_are_those_of_the_reference(folder):
    network = load(folder)[0]
    tracker = "track_head.tracker."
    names = ["track_head.feature_extractor", tracker + "corr_mlp", tracker + "updateformer",
             tracker + "updateformer.input_norm"]  # fmt: skip
    seen = watch(network, names)
    correlations = []
    network.track_head.tracker.corr_mlp.register_forward_pre_hook(
        lambda _, args: correlations.append(args[0])
    )
    network(*inputs_of(folder, "a"))
    compare(folder, "a.track.fmap_frame0", seen[names[0]][0][:1])
    compare(folder, "a.track.corr_iter0", correlations[0])
    by_point = seen[names[1]][0].transpose(1, 2)  # the reference flattens points before frames
    compare(folder, "a.track.corr_mlp_iter0", by_point)
    compare(folder, "a.track.input_norm_iter0", seen[names[3]][0])
    compare(folder, "a.track.delta_iter0", seen[names[2]][0])


@pytest.mark.parametrize("folder", FOLDERS)
def test_points_from_depth_are_those_of_the_reference(folder):
    network = load(folder)[0]
    pred = network(inputs_of(folder, "a")[0]).frame(1)
    compare(folder, "a.world_points_from_depth_frame1", pred.points_from_depth())
    direct = points_from_depth(pred.depth, pred.camera_from_world, pred.intrinsics)
    torch.testing.assert_close(direct, pred.points_from_depth())


def test_the_stream_gives_what_the_reference_stream_gives():
    """Its camera cache shares all rounds, hence `shared`; everything else equals the batch too."""
    folder = "streamvggt_tiny"
    network = load(folder)[0]
    images, _ = inputs_of(folder, "a")
    stream = network.stream("full", camera_cache="shared")
    frames = [stream.step(images[:, i]) for i in range(4)]
    for key, name in {
        "pose_enc": "pose_encoding", "depth": "depth", "depth_conf": "depth_confidence",
        "world_points": "points", "world_points_conf": "points_confidence",
    }.items():  # fmt: skip
        joined = torch.cat([getattr(frame, name) for frame in frames], dim=1)
        compare(folder, f"a.stream.{key}", joined)
    rounds = torch.cat([frame.pose_encoding_iterations for frame in frames], dim=2)
    compare(folder, "a.stream.pose_enc_iters", rounds)


def test_the_stream_with_a_cache_per_round_gives_the_batch_poses_of_the_reference():
    folder = "streamvggt_tiny"
    images, _ = inputs_of(folder, "a")
    stream = load(folder)[0].stream("full")
    rounds = [stream.step(images[:, i]).pose_encoding_iterations for i in range(4)]
    compare(folder, "a.pose_enc_iters", torch.cat(rounds, dim=2))


@pytest.mark.parametrize("folder", FOLDERS)
def test_pose_encodings_convert_as_in_the_reference(folder):
    _, inputs, outputs, _ = load(folder)
    size = tuple(int(v) for v in inputs["conv.image_hw"])
    camera, intrinsics = camera_from_pose_encoding(inputs["conv.pose_enc"], size)
    compare(folder, "conv.extrinsics", camera[..., :3, :])
    compare(folder, "conv.intrinsics", intrinsics)
    back = pose_encoding_from_camera(camera, intrinsics, size)
    compare(folder, "conv.pose_enc_roundtrip", back)
    quaternions = quaternion_from_matrix(inputs["conv.rotations"])
    expected = outputs["conv.quats_xyzw"]
    sign = (quaternions * expected).sum(-1, keepdim=True).sign()  # q and -q at half turns
    torch.testing.assert_close(quaternions * sign, expected, rtol=1e-4, atol=1e-5)
    compare(folder, "conv.se3_inverse", invert_rigid(inputs["conv.se3"]))


@pytest.mark.parametrize("folder", FOLDERS)
def test_building_blocks_give_what_those_of_the_reference_give(folder):
    _, inputs, outputs, _ = load(folder)
    x = inputs["act.x"]
    compare(folder, "act.exp", _activate(x, "exp"))
    compare(folder, "act.inv_log", _activate(x, "inv_log"))
    for name, (w, h, c), aspect in (
        ("6x4_c16", (6, 4, 16), 84 / 56), ("5x7_c8", (5, 7, 8), 42 / 84)
    ):  # fmt: skip
        along_x, along_y = uv_embedding(torch.zeros(1, c, h, w), aspect=aspect)
        full = torch.cat(
            [along_x[:, None].expand(-1, h, -1), along_y[:, :, None].expand(-1, -1, w)]
        )
        expected = outputs[f"uv.embed_{name}"]
        got = full.permute(1, 2, 0) if expected.shape[:2] == (h, w) else full.permute(2, 1, 0)
        compare(folder, f"uv.embed_{name}", got)
    motion = motion_embedding(inputs["track.flows"], channels=16, max_scale=518.0)
    compare(folder, "track.flow_embed_c16", motion[..., :32])


@pytest.mark.parametrize("folder", FOLDERS)
def test_sampling_gives_what_that_of_the_reference_gives(folder):
    _, inputs, outputs, _ = load(folder)
    maps, coords = inputs["track.fmap"], inputs["track.coords"]
    compare(folder, "track.sample_border", sample_bilinear(maps, coords))
    table = outputs["track.sincos_5x7_c20"]  # 1 c h w
    at_cells = position_embedding(_cells(5, 7), (5, 7), 20).view(1, 5, 7, 20)
    compare(folder, "track.sincos_5x7_c20", at_cells.permute(0, 3, 1, 2))
    between = position_embedding(coords, (5, 7), 20)
    torch.testing.assert_close(between, sample_bilinear(table, coords), rtol=1e-4, atol=1e-5)
    # zeros padding is part of the correlation: one channel against a feature of 1
    for channel in range(6):
        pyramid = CorrelationPyramid(maps[:, None, channel : channel + 1], 1, 0)
        got = pyramid.sample(torch.ones(1, 1, 5, 1), coords[:, None])
        expected = outputs["track.sample_zeros"][:, channel]
        torch.testing.assert_close(got.flatten(), expected.flatten(), rtol=1e-4, atol=1e-5)


def _cells(h, w):
    y, x = torch.meshgrid(torch.arange(float(h)), torch.arange(float(w)), indexing="ij")
    return torch.stack([x, y], dim=-1).view(1, h * w, 2)


def watch(network, names):
    """Outputs of the modules with these names, in order of calls, filled by the next forward."""
    seen = {name: [] for name in names}
    for name in names:
        module = network.get_submodule(name)
        module._forward_hooks.clear()
        module.register_forward_hook(lambda _m, _a, out, name=name: seen[name].append(out))
    return seen
