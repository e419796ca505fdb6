from pathlib import Path

import pytest
import yaml

from everview.errors import ConfigError, InputError
from everview.training.adapt.freezing import check_trainable, freeze
from everview.training.adapt.lora import add_lora
from everview.training.datasets.sets import PUBLISHED_MIXTURE
from everview.training.recipe.named import RECIPES, find_recipe
from everview.training.recipe.plain import from_plain, to_plain
from everview.training.recipe.recipe import TrainingRecipe
from everview.training.recipe.settings import Stage
from everview.training.recipe.terms import TERMS
from everview.training.run.setup import config_of
from everview.training.schedule import SCHEDULES
from everview.weights.load import empty_network


@pytest.mark.parametrize("name", RECIPES)
def test_every_named_recipe_is_read_as_it_was_written(name, tmp_path):
    recipe = find_recipe(name)
    path = tmp_path / "recipe.yaml"
    recipe.save(path)
    assert TrainingRecipe.read(path) == recipe
    assert find_recipe(str(path)) == find_recipe(str(tmp_path)) == recipe


def test_the_first_stage_of_the_teacher_is_nothing_but_matching():
    """Every other term of procedural truth has no weight there, or no maps and tracks to judge."""
    stage = find_recipe("mini-teacher").stages[0]
    of_maps = {"depth", "depth_gradient", "scale", "points", "tracks"}
    assert stage.dense_images == stage.track_every == 0
    silent = {f"truth/{term}" for term in TERMS["procedural"] if term not in of_maps}
    assert all(
        stage.weights[name] == 0 for name in silent | {"guide/rotation", "guide/translation"}
    )


def test_a_file_may_hold_some_settings_only(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("optimiser: {learning_rate: 1e-4}\nstages: [{frames: [3, 5]}, {share: 2}]\n")
    recipe = TrainingRecipe.read(path)
    assert recipe.optimiser.learning_rate == 1e-4
    assert recipe.stages == (Stage(frames=(3, 5)), Stage(share=2.0))
    assert recipe.network == TrainingRecipe().network
    path.write_text("")
    assert TrainingRecipe.read(path) == TrainingRecipe()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("optimizer: {}", ConfigError, "has no setting 'optimizer'; it has compute, data"),
        ("data: {hights: [14]}", ConfigError, "mine.yaml.data has no setting 'hights'"),
        ("stages: [{frame: 3}]", ConfigError, "stages.0 has no setting 'frame'"),
        ("stages: [{frames: [1, 2, 3]}]", ConfigError, "stages.0.frames must be a list of 2"),
        ("run: {seed: 1.5}", ConfigError, "run.seed must be a whole number; got 1.5"),
        ("run: {seed: true}", ConfigError, "run.seed must be a whole number; got True"),
        ("run: {tensorboard: 1}", ConfigError, "run.tensorboard must be true or false; got 1"),
        ("network: {preset: 3}", ConfigError, "network.preset must be a text; got 3"),
        ("data: {colours: much}", ConfigError, "data.colours must be a number; got 'much'"),
        ("compute: {parallel: dp}", ConfigError, "must be one of 'ddp', 'fsdp'; got 'dp'"),
        ("objective: {weights: [1]}", ConfigError, "must be a mapping of names to values"),
        ("network: [tiny]", ConfigError, "must be settings of NetworkSettings"),
        ("a: b: c", InputError, "mine.yaml is no training recipe"),
    ],
)
def test_a_file_that_says_nonsense_is_refused_by_name(text, error, message, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(error, match=message):
        TrainingRecipe.read(path)


def test_settings_are_changed_by_name():
    recipe = TrainingRecipe().changed(
        [
            "optimiser.learning_rate=1e-4",
            "optimiser.betas=[0.8, 0.9]",
            "network.attention=global",
            "network.lora.rank=4",
            "network.frozen=['*.norm']",
            "stages.0.weights.truth/depth=2",
            "objective.weights.guide/flow=0",
        ]
    )
    assert recipe.optimiser.learning_rate == 1e-4
    assert recipe.optimiser.betas == (0.8, 0.9)
    assert recipe.network.attention == "global"
    assert recipe.network.lora.rank == 4
    assert recipe.network.frozen == ("*.norm",)
    assert recipe.stages[0].weights == {"truth/depth": 2.0}
    assert recipe.objective.weights == {"guide/flow": 0.0}
    assert recipe.changed(["network.lora=null"]).network.lora is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.learning_rate", "sets nothing: write --set optimiser.learning_rate=1e-4"),
        ("optimiser.rate=1", "recipe.optimiser has no setting 'rate'"),
        ("stages.1.images=4", "'1' is none of the items 0 .. 0"),
        ("run.seed=[", "is no YAML value"),
        ("schedule.length=0", "length > 0"),
        ("optimiser.learning_rate.peak=3", "learning_rate must be a number"),
    ],
)
def test_a_change_that_changes_nothing_is_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        TrainingRecipe().changed([override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.0.frames=[0,4]", "1 <= low <= high <= images 16"),
        ("stages.0.frames=[4,20]", "1 <= low <= high <= images 16"),
        ("stages.0.gaps=[0,1]", r"gaps \(1 or more\)"),
        ("stages.0.share=0", "share > 0"),
        ("stages.0.tilted_share=2", "tilted_share must be from 0 to 1"),
        ("stages.0.reversed_share=5", "reversed_share must be from 0 to 1"),
        ("stages.0.moving=.nan", "moving must be from 0 to 1"),
        ("stages.0.kind=kitchen", "kind must be one of any, room, corridor"),
        ("stages.0.kind_shares={kitchen: 1}", "kind_shares must be one of room, corridor"),
        ("stages.0.kind_shares={any: 1}", "kind_shares must be one of room, corridor"),
        ("stages.0.kind_shares={room: 0}", "kind_shares must be above 0, .* got room: 0"),
        ("stages.0={kind: street, kind_shares: {room: 1}}", "and kind any; got room: 1.*, street"),
        ("stages.0.motion=hop", "motion must be one of any, hand-held"),
        ("stages.0.speeds=[1,.inf]", r"speeds \(above 0\)"),
        ("schedule.length=.nan", "needs schedule.length > 0"),
        ("schedule.length=.inf", "needs schedule.length > 0"),
        ("optimiser.betas=[2,3]", r"betas in \[0, 1\)"),
        ("optimiser.learning_rate=.inf", "learning_rate > 0"),
        ("optimiser.weight_decay=-1", "weight_decay must be >= 0"),
        ("stages.0.tilts=[10,-40]", r"tilts must be \(low, high\) within 90 degrees"),
        ("stages=[]", "at least one stage"),
        ("data.heights=[84,100]", "must be multiples of 14"),
        ("data.reuse=0", "reuse, tracked_points, ahead >= 1"),
        ("data.identical_epochs=true", "identical_epochs needs folders"),
        ("data.colours=-1", "colours must be >= 0"),
        ("objective.truth=best", "must be one of procedural, paper, released"),
        ("objective.teacher=best", "must be one of corrected, paper, released"),
        ("schedule.floor=1", "lies above the learning rate"),
        ("compute.accumulation=0", "accumulation must be >= 1"),
        ("run.log_every=0", "log_every, give_up_after, checkpoint_steps >= 1"),
        ("run.shard_megabytes=0", "shard_megabytes must be 0.001 or more"),
        ("optimiser.average_decay=1", r"average_decay and betas in \[0, 1\)"),
        ("network.lora.rank=0", "rank >= 1"),
        ("teacher.faults.noise=-1", "Faults.noise must be >= 0"),
        ("objective.weights.truth/deph=1", "weight of 'truth/deph' is set, a term that"),
        ("stages.0.weights.teacher/depth=1", "it has guide/attention, guide/flow"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_in_words(override, message):
    with pytest.raises(ConfigError, match=message):
        TrainingRecipe().changed([override])


def test_an_objective_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="needs a truth, a teacher or a guide"):
        TrainingRecipe().changed(["objective.truth=null", "objective.guide=null"])


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'maxi' is unknown: use mini-teacher, .*, a YAML file"):
        find_recipe("maxi")


def test_stages_follow_their_shares():
    recipe = TrainingRecipe(stages=(Stage(share=1), Stage(share=3), Stage(share=4)))
    found = [recipe.stage_at(share) for share in (0, 0.124, 0.126, 0.49, 0.51, 0.99, 1.0, 1.5)]
    assert found == [0, 0, 1, 1, 2, 2, 2, 2]


def test_the_rate_of_a_timed_run_warms_up_by_steps_and_falls_with_the_time():
    recipe = TrainingRecipe().changed(["optimiser.learning_rate=1", "schedule.warm_up_steps=10"])
    assert [recipe.rate(step, 0.0) for step in (0, 4, 9, 99)] == pytest.approx([0.1, 0.5, 1, 1])
    falling = [recipe.rate(99, share) for share in (0.25, 0.5, 1.0, 1.5)]
    assert falling == pytest.approx([0.853553, 0.5, 0, 0], abs=1e-6)


def test_the_rate_of_a_counted_run_is_the_published_schedule():
    recipe = TrainingRecipe().changed(
        ["optimiser.learning_rate=1", "schedule.unit=steps", "schedule.length=100",
         "schedule.warm_up_steps=20", "schedule.floor=0.1"]
    )  # fmt: skip
    rates = [recipe.rate(step, 0.0) for step in (0, 10, 20, 60, 100)]
    assert rates == pytest.approx([0, 0.5, 1, 0.55, 0.1])
    flat = recipe.changed(["schedule.shape=constant"])
    assert [flat.rate(step, 0.5) for step in (9, 50, 100)] == pytest.approx([0.5, 1, 1])


def test_only_the_machine_may_change_on_the_way():
    recipe = TrainingRecipe()
    assert recipe.learns_like(
        recipe.changed(["compute.parallel=fsdp", "run.log_every=3", "data.ahead=2"])
    )
    assert not recipe.learns_like(recipe.changed(["run.seed=3"]))
    assert not recipe.learns_like(recipe.changed(["data.reuse=2"]))


def test_every_setting_survives_yaml():
    plain = to_plain(find_recipe("tiny-both").changed(["network.lora.rank=4", "data.mixture=3@a"]))
    again = yaml.safe_load(yaml.safe_dump(plain))
    assert again == plain
    assert to_plain(from_plain(TrainingRecipe, again, "recipe")) == plain


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[3] / "recipes").glob("*.yaml")), ids=lambda p: p.stem
)
def test_recipes_to_copy_can_be_read_and_learn_what_they_say(path):
    recipe = find_recipe(str(path))
    assert recipe.objective.asks_teacher or recipe.objective.truth
    assert f"`{path.name}`" in (path.parent / "README.md").read_text()
    network = empty_network(config_of(recipe.network))
    if recipe.network.lora is not None:
        add_lora(network, recipe.network.lora, seed=0)
    freeze(network, recipe.network.frozen)
    check_trainable(network, recipe.network.trainable_parameters)


def test_the_released_recipe_has_the_published_schedule_and_mixture():
    recipe = find_recipe(str(Path(__file__).parents[3] / "recipes" / "streamvggt-released.yaml"))
    published = SCHEDULES["streamvggt-released"]
    for step in (0, 1000, 4875, 50_000, 97_500):
        assert recipe.rate(step, 0.0) == pytest.approx(published.rate(step / 9750))
    assert recipe.data.mixture.split() == PUBLISHED_MIXTURE.split()
