"""Tracks in a stream: the tracker runs on a few remembered feature maps and the newest one.

The published streaming inference gives the tracker the newest frame alone, so that its tracks are
the queries in every frame. Here it sees the query's frame, the latest few frames and the new one,
and refinement starts at the query, as in training. Cost per frame: one feature map, and per query
frame `iters` rounds of the tracker on at most NUM_RECENT + 2 maps; constant in the length of the
stream.
"""

from collections.abc import Sequence
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
"""Different frames whose feature maps are kept as the place where points were asked for."""


def start_group(network: "Network", state: StreamState, queries: Float[Tensor, "b t 2"]) -> None:
    """Remember the latest frame's feature map as the place where `queries` were asked for.

    Points of one frame share a map. Beyond MAX_QUERY_FRAMES maps the points of the oldest one are
    anchored anew where they were last found, on the latest frame: memory stays bounded and every
    point is still followed, at the price of some drift.

    Raises:
        ConfigError: if the network has no track head or the frame is too small for it.
    """
    assert state.image_size is not None, "a frame was seen"
    latest = state.num_frames - 1
    first = sum(len(group.points) for group in state.groups)
    points = list(range(first, first + queries.shape[1]))
    newest = state.groups[-1] if state.groups else None
    if newest is not None and newest.frame == latest:
        newest.queries = torch.cat([newest.queries, queries], dim=1)
        newest.points = newest.points + points
        state.sort_tracks()
        return
    head = network.require_track_head()
    if state.recent_maps:
        query_map = state.recent_maps[-1]
    else:
        query_map = network.track_features(state.tokens, state.image_size)[:, 0]
    head.tracker.check_size(query_map)
    if len(state.groups) == MAX_QUERY_FRAMES:
        oldest, *state.groups = state.groups
        last_seen = oldest.queries if oldest.latest is None else oldest.latest
        queries = torch.cat([last_seen, queries], dim=1)
        points = oldest.points + points
    state.groups.append(
        TrackedGroup(frame=latest, points=points, queries=queries, query_map=query_map)
    )
    state.sort_tracks()


def check_frame_size(state: StreamState, size: tuple[int, int]) -> None:
    """Refuse a frame of another size while points are followed.

    Raises:
        ConfigError: naming both sizes.
    """
    if state.groups and state.image_size != size:
        raise ConfigError(
            f"points are followed on frames of {state.image_size}, got {size} (height, width): "
            "give frames of one size, or start a new stream"
        )


def follow(
    network: "Network", state: StreamState, newest: Float[Tensor, "b c h w"]
) -> dict[str, Tensor]:
    """Find all points asked for so far in the newest frame, and remember where they were.

    Returns:
        the fields of a Prediction, points in the order in which they were asked for.
    """
    found = [_follow_group(network, state, group, newest) for group in state.groups]
    for group, (tracks, _, _) in zip(state.groups, found, strict=True):
        group.latest = tracks[:, 0]
    state.recent_maps = [*state.recent_maps, newest][-NUM_RECENT:]
    fields = {
        "tracks": _joined(state, [tracks for tracks, _, _ in found]),
        "visibility": _joined(state, [logits for _, logits, _ in found]).sigmoid(),
    }
    confidences = [logits for _, _, logits in found if logits is not None]
    if confidences:
        fields["track_confidence"] = _joined(state, confidences).sigmoid()
    return fields


def _follow_group(
    network: "Network", state: StreamState, group: TrackedGroup, newest: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Tracks b 1 t 2 in pixels and two logits b 1 t of one group, in the newest frame."""
    since = min(len(state.recent_maps), state.num_frames - 1 - group.frame)
    recent = state.recent_maps[len(state.recent_maps) - since :]
    maps = torch.stack([group.query_map, *recent, newest], dim=1)
    tracker = network.require_track_head().tracker
    rounds, visibility, confidence = tracker(maps, group.queries)
    last_confidence = None if confidence is None else confidence[:, -1:]
    return rounds[-1][:, -1:], visibility[:, -1:], last_confidence


def _joined(state: StreamState, parts: Sequence[Tensor]) -> Tensor:
    """Values of all groups (b 1 t or b 1 t 2), in the order in which the points were asked for."""
    values = torch.cat(list(parts), dim=2)
    return values if state.track_order is None else values.index_select(2, state.track_order)
