import pytest
import torch
from PIL import Image

from everview.errors import ConfigError, InputError
from everview.training.feed.batch import Request
from everview.training.feed.folders import FolderSource
from everview.training.feed.loader import open_source
from everview.training.run.trainer import Trainer
from everview.world import NO_EFFECTS, Options, sequence
from everview.world.layouts.registry import LAYOUTS

STILL = Options(moving=0.0, effects=NO_EFFECTS)


@pytest.fixture(scope="module")
def clip():
    return sequence(3, 6, size=(56, 70), speed=3, kind="room", options=STILL)


@pytest.fixture(scope="module")
def folder(clip, tmp_path_factory):
    """Two scenes in the layout of a published set."""
    path = tmp_path_factory.mktemp("sets") / "mvs_synth"
    LAYOUTS["mvs_synth"](path, [clip, clip])
    return path


@pytest.fixture
def source(folder, small_recipe):
    def make(*overrides, num_parts=1):
        recipe = small_recipe(f"data.folders=['{folder}']", *overrides)
        return FolderSource(recipe, num_parts=num_parts)

    return make


def test_a_set_on_disk_gives_clips_with_the_truth(source):
    batch = source().batch(Request(step=0, stage=0))
    assert batch.images.shape == (2, 2, 3, 42, 56)
    truth = batch.truth
    distance = (truth.points.norm(dim=-1) * truth.mask).sum((1, 2, 3)) / truth.mask.sum((1, 2, 3))
    torch.testing.assert_close(distance, torch.ones_like(distance), rtol=1e-3, atol=1e-3)
    first = truth.pose_encoding[:, 0, :7]
    torch.testing.assert_close(
        first, torch.tensor([0, 0, 0, 0, 0, 0, 1.0]).expand_as(first), rtol=0, atol=1e-5
    )
    assert truth.tracks is None
    assert batch.queries.shape == (2, 4, 2)
    assert all("mvs_synth" in label for label in batch.labels)


def test_the_same_request_gives_the_same_samples_and_an_epoch_never_repeats_one(source):
    one, other = source(), source()
    labels = []
    for step in range(6):
        batch = one.batch(Request(step=step, stage=0))
        labels += batch.labels
        assert torch.equal(batch.images, other.batch(Request(step=step, stage=0)).images)
    assert len(labels) == 12
    starts = [label.partition(" .. ")[0] for label in labels[:6]]
    assert len(set(starts)) == len(starts)


def test_identical_epochs_show_the_very_same_again(source):
    made = source("data.identical_epochs=true", "data.colours=1", "stages.0.frames=[1,3]")
    steps = made._steps_per_epoch(made._stride(made.recipe.stages[0]))
    for step in range(steps):
        once, again = (made.batch(Request(step=s, stage=0)) for s in (step, step + 2 * steps))
        assert torch.equal(once.images, again.images)
        assert once.labels == again.labels
        if once.queries is not None:
            assert torch.equal(once.queries, again.queries)
    usual = source("data.colours=1", "stages.0.frames=[1,3]")
    first, later = (usual.batch(Request(step=s, stage=0)) for s in (0, steps))
    assert first.images.shape != later.images.shape or not first.images.equal(later.images)


def test_a_cache_answers_from_the_second_of_identical_epochs_on(
    folder, small_recipe, teacher_folder, tmp_path
):
    said, shown = tmp_path / "said", 12  # samples of the set
    recipe = small_recipe(
        f"data.folders=['{folder}']", "data.identical_epochs=true", f"teacher.cache={said}",
        f"teacher.model={teacher_folder}", "objective.teacher=corrected", "objective.truth=null",
        "objective.guide=null", "schedule.length=14",
    )  # fmt: skip
    lines = list(Trainer(recipe, tmp_path / "run").run())
    assert lines[-1]["images"] == 2 * 2 * 14  # clips of two frames
    assert 0 < len(list(said.rglob("*.teacher"))) <= shown


def test_parts_share_out_the_samples_of_a_step(source):
    whole = source().batch(Request(step=1, stage=0))
    split = source(num_parts=2)
    parts = [split.batch(Request(step=1, stage=0, part=part)) for part in (0, 1)]
    assert [label for part in parts for label in part.labels] == list(whole.labels)


def test_clips_of_many_lengths_keep_to_the_budget(source):
    made = source("stages.0.frames=[1,4]", "stages.0.images=4")
    shapes = {made.batch(Request(step=s, stage=0)).images.shape[:2] for s in range(12)}
    assert {b * s for b, s in shapes} <= {3, 4}
    assert len(shapes) > 2


@pytest.fixture
def pictures(clip, tmp_path):
    """A folder of images and nothing else."""
    folder = tmp_path / "walk" / "images"
    folder.mkdir(parents=True)
    for number, image in enumerate(clip.images):
        pixels = (image * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return tmp_path


def test_plain_pictures_have_no_truth_and_all_of_their_pixels_count(pictures, small_recipe):
    recipe = small_recipe(f"data.folders=['footage={pictures}']")
    batch = FolderSource(recipe).batch(Request(step=0, stage=0))
    assert batch.truth is None
    assert batch.valid.all()
    assert len(batch.queries.unique(dim=1)[0]) > 1


def test_mixtures_name_sets(source, folder, small_recipe):
    batch = source("data.mixture=40 @ mvs_synth").batch(Request(step=15, stage=0))
    assert len(batch.labels) == 2
    with pytest.raises(ConfigError, match="the mixture names 'waymo'"):
        source("data.mixture=40 @ waymo")
    named = small_recipe(f"data.folders=['mvs_synth={folder}']")
    assert list(FolderSource(named).mixture.datasets) == ["mvs_synth"]
    with pytest.raises(ConfigError, match="'mvs_synth=' names no path"):
        FolderSource(small_recipe("data.folders=['mvs_synth=']"))


def test_a_set_too_small_for_a_step_is_refused(source):
    with pytest.raises(InputError, match="fewer samples than the 20 of one step"):
        source("stages.0.images=40").batch(Request(step=0, stage=0))


def test_a_recipe_with_folders_opens_them(source, folder, small_recipe):
    recipe = small_recipe(f"data.folders=['{folder}']")
    opened = open_source(recipe, num_parts=1, device=torch.device("cpu"))
    assert isinstance(opened, FolderSource)
