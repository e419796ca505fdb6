"""Tracks in a stream: the tracker runs on a few remembered feature maps and the newest one.

The published streaming inference gives the tracker the newest frame alone, so that its tracks are
the queries in every frame. Here it sees the query's frame, the latest few frames and the new one,
and starts where the points were last seen. Cost per frame: one feature map, and per query frame
`iters` rounds of the tracker on at most NUM_RECENT + 2 maps; constant in the length of the stream.
"""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from everview.errors import ConfigError
from everview.memory.state import StreamState, TrackedGroup

if TYPE_CHECKING:
    from everview.model.network import Network

NUM_RECENT = 4
"""Feature maps of the latest frames that are kept."""

MAX_QUERY_FRAMES = 8
"""Different frames in which points may be asked for; each keeps its feature map."""


def start_group(network: "Network", state: StreamState, queries: Float[Tensor, "b t 2"]) -> None:
    """Remember the latest frame's feature map as the place where `queries` were asked for.

    Raises:
        ConfigError: if the network has no track head, the frame is too small for it, or points were
            asked for in MAX_QUERY_FRAMES frames already.
    """
    if len(state.groups) >= MAX_QUERY_FRAMES:
        raise ConfigError(
            f"points were asked for in {MAX_QUERY_FRAMES} frames already, more are not kept: "
            "give all points of a frame in one call, or start a new stream"
        )
    assert state.image_size is not None, "a frame was seen"
    head = network.require_track_head()
    if state.recent_maps:
        query_map = state.recent_maps[-1]
    else:
        query_map = network.track_features(state.tokens, state.image_size)[:, 0]
    head.tracker.check_size(query_map)
    state.groups.append(TrackedGroup(queries=queries, query_map=query_map))


def follow(
    network: "Network", state: StreamState, newest: Float[Tensor, "b c h w"]
) -> dict[str, Tensor]:
    """Where all points asked for so far are in the newest frame: the fields of a Prediction."""
    found = [_follow_group(network, state, group, newest) for group in state.groups]
    tracks, visibility, confidence = (torch.cat(part, dim=2) for part in zip(*found, strict=True))
    return {
        "tracks": tracks,
        "visibility": visibility.sigmoid(),
        "track_confidence": confidence.sigmoid(),
    }


def remember_map(
    state: StreamState, newest: Float[Tensor, "b c h w"], tracks: Float[Tensor, "b s t 2"]
) -> None:
    """Keep the newest map and what was found in it, and drop what has become too old."""
    state.recent_maps = [*state.recent_maps, newest][-NUM_RECENT:]
    sizes = [group.queries.shape[1] for group in state.groups]
    for group, points in zip(state.groups, tracks[:, 0].split(sizes, dim=1), strict=True):
        group.recent = [*group.recent, points][-NUM_RECENT:]


def _follow_group(
    network: "Network", state: StreamState, group: TrackedGroup, newest: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Tracks b 1 t 2 in pixels and two logits b 1 t of one group, in the newest frame."""
    since = len(group.recent)
    maps = torch.stack([group.query_map, *state.recent_maps[len(state.recent_maps) - since :],
                        newest], dim=1)  # fmt: skip
    last = group.recent[-1] if group.recent else group.queries
    guess = torch.stack([group.queries, *group.recent, last], dim=1)  # b s t 2
    rounds, visibility, confidence = network.require_track_head().tracker(
        maps, group.queries, guess
    )
    return rounds[-1][:, -1:], visibility[:, -1:], confidence[:, -1:]
