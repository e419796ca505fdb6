"""Files with random damage are read or refused; nothing else may happen."""

import random

import pytest
import torch
from safetensors.torch import save_file

from everview.errors import WeightsError
from everview.weights.files import open_weights

VALUES = {"layer.weight": torch.ones(20, 30), "layer.bias": torch.ones(7).half()}


def write(name, path):
    if name == "safetensors":
        save_file(VALUES, path)
    else:
        torch.save(VALUES, path, _use_new_zipfile_serialization=name == "zip")


@pytest.mark.parametrize("damage", ["cut", "bytes changed"])
@pytest.mark.parametrize("name", ["safetensors", "zip", "legacy"])
@pytest.mark.filterwarnings("ignore")
def test_random_damage_is_refused_in_words_or_does_not_matter(name, damage, tmp_path):
    path = tmp_path / ("x.safetensors" if name == "safetensors" else "x.pt")
    write(name, path)
    whole, dice, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(60):
        content = bytearray(whole)
        if damage == "cut":
            content = content[: dice.randrange(len(whole))]
        else:
            content[dice.randrange(900)] = dice.randrange(256)
        path.write_bytes(content)
        try:
            assert all(isinstance(value, torch.Tensor) for _, value in open_weights(path).read())
        except WeightsError as error:
            refused += 1
            assert path.name in str(error)  # noqa: PT017
    assert refused > (55 if damage == "cut" and name != "legacy" else 5)
