"""Student, teacher and loss together, on networks of the smallest size."""

from dataclasses import replace

import pytest
import torch

from everview.model.network import build
from everview.model.presets import presets
from everview.training.losses.distillation import DISTILLATION, distillation
from everview.training.teacher import Teacher, sample_query_points


@pytest.fixture(scope="module")
def teacher():
    return Teacher(build(replace(presets["tiny"], attention="global"), seed=3))


@pytest.fixture
def images():
    return torch.rand(2, 2, 3, 28, 42)


@pytest.mark.parametrize("preset", DISTILLATION)
def test_all_weights_of_the_student_learn_from_the_teacher(teacher, images, preset):
    student = build(presets["tiny"], seed=1).train()
    queries = sample_query_points(torch.ones(2, 28, 42, dtype=torch.bool), num_points=6)
    objective = distillation(
        student.predict(images, queries), teacher(images, queries), preset=preset
    )
    objective.total.backward()
    untaught = {
        name
        for name, weight in student.named_parameters()
        if weight.grad is None and not (preset == "paper" and "conf_predictor" in name)
    }
    assert untaught <= {"aggregator.patch_embed.mask_token"}
    assert all(w.grad.isfinite().all() for w in student.parameters() if w.grad is not None)


def test_a_few_steps_bring_the_student_nearer_to_its_teacher(teacher, images):
    student = build(presets["tiny"], seed=1).train()
    said = teacher(images)
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-3)
    totals = []
    for _ in range(4):
        frames = [(0, 0), (0, 1), (1, 1)]
        total = distillation(
            student.predict(images, dense_frames=frames), said, dense_frames=frames
        ).total
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.9 * totals[0]
