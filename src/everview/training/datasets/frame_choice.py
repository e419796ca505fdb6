"""Which frames of a scene make a sample."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from everview.training.datasets.declaration import SamplingRules
from everview.training.datasets.view import Links, Scene


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameChoice:
    """Positions of a sample's frames in the order in which the network sees them."""

    positions: tuple[int, ...]
    """All different."""
    is_video: bool
    """Whether they are in order of time."""


def choose_frames(
    scene: Scene, start: int, *, num_views: int, rules: SamplingRules, dice: random.Random
) -> FrameChoice | None:
    """Draw the frames of a sample.

    Scenes with links follow the order of time in `rules.ordered_share` of the samples, and the
    links otherwise; a start that the drawn way has no use for gives way to a random one.

    Args:
        scene: where they come from.
        start: position that the sample starts from.
        num_views: how many.
        rules: of the set.
        dice: decides; the only source of chance.

    Returns:
        None if the scene cannot give so many.
    """
    follows_order = scene.links is None or dice.random() < rules.ordered_share
    if scene.links is not None and not follows_order:
        positions = linked_positions(scene.links, start, num_views, dice=dice)
        return None if positions is None else FrameChoice(positions=positions, is_video=False)
    length = scene.num_ordered
    if scene.links is None and not length:
        length = len(scene)  # a collection without links: frames that are near by number
    if length < num_views:
        return None
    start = start if start < length else dice.randrange(length)
    is_video = scene.num_ordered > 0 and dice.random() < rules.video
    has_fixed_gap = is_video and dice.random() < rules.fixed_gap
    positions = ordered_positions(
        min(start, length - num_views),
        length=length,
        num_views=num_views,
        max_gap=scene.max_gap or rules.max_gap,
        has_fixed_gap=has_fixed_gap,
        dice=dice,
    )
    if not is_video:
        positions = shuffled(positions, rules.block, dice=dice)
    return FrameChoice(positions=positions, is_video=is_video)


def ordered_positions(
    start: int,
    *,
    length: int,
    num_views: int,
    max_gap: int,
    has_fixed_gap: bool,
    dice: random.Random,
) -> tuple[int, ...]:
    """Sorted positions from `start` on.

    Steps are drawn from 1 .. min(max_gap, 2 rest / (num_views - 1)), where `rest` frames follow the
    start; positions past the end are replaced by random unused ones after the start. With a fixed
    gap all steps are one number from 1 .. min(max_gap, rest / (num_views - 1)).

    Args:
        start: first position; at least `num_views` - 1 frames must follow it.
        length: frames that there are.
        num_views: how many positions.
        max_gap: largest step.
        has_fixed_gap: whether all steps are equal.
        dice: decides.

    Source: sampling of the released StreamVGGT recipe (CUT3R's sets).
    """
    if num_views == 1:
        return (start,)
    rest, num_steps = length - 1 - start, num_views - 1
    assert rest >= num_steps, "the caller moves the start back until enough frames follow it"
    if has_fixed_gap:
        gap = dice.randint(1, min(rest // num_steps, max_gap))
        return tuple(start + gap * i for i in range(num_views))
    largest = max(1, min(max_gap, 2 * rest // num_steps))
    positions = [start]
    for _ in range(num_steps):
        positions.append(positions[-1] + dice.randint(1, largest))
    inside = [position for position in positions if position < length]
    unused = sorted(set(range(start + 1, length)) - set(inside))
    return tuple(sorted(inside + dice.sample(unused, num_views - len(inside))))


def linked_positions(
    links: Links, start: int, num_views: int, *, dice: random.Random
) -> tuple[int, ...] | None:
    """Positions that see the same: from one stored set, else by a walk over the overlap graph.

    Sets that hold `start` are preferred; None if no set and no walk is large enough.
    """
    large = [members for members in links.sets if len(members) >= num_views]
    if large:
        members = dice.choice([s for s in large if start in s] or large)
        first = start if start in members else dice.choice(members)
        others = [position for position in members if position != first]
        return (first, *dice.sample(others, num_views - 1))
    return walk(links.neighbours, start, num_views, dice=dice)


def walk(
    neighbours: Mapping[int, Sequence[int]], start: int, num_views: int, *, dice: random.Random
) -> tuple[int, ...] | None:
    """Random walk over a graph that visits each position once.

    From where it cannot go on it jumps to an unvisited neighbour of any position that it has seen;
    None if the part of the graph that holds `start` is too small.
    """
    visited = [start]
    while len(visited) < num_views:
        free = _unvisited(neighbours, visited[-1:], visited) or _unvisited(
            neighbours, visited, visited
        )
        if not free:
            return None
        visited.append(dice.choice(free))
    return tuple(visited)


def shuffled(
    positions: Sequence[int], block: int | None, *, dice: random.Random
) -> tuple[int, ...]:
    """Positions in random order: as a whole, or within blocks that keep their place."""
    size = block or len(positions)
    result: list[int] = []
    for first in range(0, len(positions), size):
        part = list(positions[first : first + size])
        dice.shuffle(part)
        result += part
    return tuple(result)


def _unvisited(
    neighbours: Mapping[int, Sequence[int]], of: Sequence[int], visited: Sequence[int]
) -> list[int]:
    around = {position for one in of for position in neighbours.get(one, ())}
    return sorted(around - set(visited))
