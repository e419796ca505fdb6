"""Putting solids together piece by piece."""

import math
from collections.abc import Sequence

import torch

from everview.world.solids import Solids, join_solids, make_solids, turn_about_y

Part = tuple[int, float, float, float, float, float, float, int]
"""Shape, centre x y z, half sizes, and which of the piece's materials."""
Vector = tuple[float, float, float]


class Builder:
    """Collects solids; `build` sorts them.

    Args:
        salt: tells places apart whose textures shall not begin alike.
    """

    def __init__(self, salt: int = 0) -> None:
        self._rows: list[tuple[float, ...]] = []
        self._materials: list[Sequence[int]] = []
        self._salt = salt
        self._others: list[Solids] = []

    def add(
        self,
        shape: int,
        centre: Vector,
        half: Vector,
        material: int | Sequence[int],
        *,
        yaw: float = 0.0,
        body: int = 0,
        offset: tuple[float, float] | None = None,
    ) -> None:
        """Add a solid that is turned about the vertical axis.

        Args:
            shape: constant of `solids`.
            centre: metres.
            half: half sizes along own axes.
            material: of all faces, or of -x +x -y +y -z +z.
            yaw: radians; (0, 0, 1) goes to (sin, 0, cos).
            body: what it moves with; `centre` then is in that body's frame.
            offset: of its texture in metres; drawn if left out.
        """
        number = len(self._rows) + 37 * self._salt
        shift = offset or (number * 0.618034 % 1 * 7, number * 0.754878 % 1 * 7)
        self._rows.append((shape, *centre, *half, yaw, body, *shift))
        self._materials.append([material] * 6 if isinstance(material, int) else material)

    def add_piece(
        self,
        parts: Sequence[Part],
        at: Vector,
        scale: Vector,
        materials: Sequence[int],
        *,
        yaw: float = 0.0,
        body: int = 0,
    ) -> None:
        """Add a piece of furniture: parts in its own units, y up from its foot.

        Args:
            parts: see `Part`.
            at: its foot.
            scale: metres per unit.
            materials: those that the parts choose from.
            yaw: radians.
            body: what it moves with.
        """
        cos, sin = math.cos(yaw), math.sin(yaw)
        for shape, own_x, own_y, own_z, hx, hy, hz, which in parts:
            x, y, z = own_x * scale[0], own_y * scale[1], own_z * scale[2]
            centre = (at[0] + cos * x + sin * z, at[1] - y, at[2] - sin * x + cos * z)
            half = (hx * scale[0], hy * scale[1], hz * scale[2])
            material = materials[which % len(materials)]
            self.add(shape, centre, half, material, yaw=yaw, body=body)

    def add_solids(self, solids: Solids) -> None:
        """Add what was made elsewhere."""
        self._others.append(solids)

    def build(self) -> Solids:
        """All that was added, sorted by shape."""
        table = torch.tensor(self._rows, dtype=torch.float32).reshape(-1, 11)
        solids = make_solids(
            table[:, 0].long(), table[:, 1:4], table[:, 4:7],
            turn=turn_about_y(table[:, 7]),
            material=torch.tensor(self._materials, dtype=torch.long).reshape(-1, 6),
            offset=table[:, 9:],
            body=table[:, 8].long(),
        )  # fmt: skip
        return join_solids([solids, *self._others])
