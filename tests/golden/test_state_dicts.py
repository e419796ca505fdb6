"""Names and shapes of the published checkpoints, without their gigabytes."""

from pathlib import Path

import pytest
import torch

from everview.model.network import Network
from everview.model.presets import presets

GOLDEN = Path(__file__).parent


@pytest.mark.parametrize(
    ("preset", "file"),
    [("vggt-1b", "state_dict_vggt_1b.txt"), ("streamvggt-1b", "state_dict_streamvggt.txt")],
)
def test_all_official_names_and_shapes_are_ours(preset, file):
    lines = [line.split("\t") for line in (GOLDEN / file).read_text().splitlines()]
    official = {line[0]: line[1] for line in lines if not line[0].startswith("#")}
    with torch.device("meta"):
        network = Network(presets[preset])
    ours = {n: str(list(t.shape)).replace(" ", "") for n, t in network.state_dict().items()}
    assert len(official) == 1797
    assert ours == official
    assert sum(p.numel() for p in network.parameters()) == 1_256_537_516
