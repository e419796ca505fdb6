"""The report: what is in it, what is never in it, and that it needs nothing else."""

import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from everview.cli.main import main
from everview.evaluation.benchmarks.registry import BENCHMARKS
from everview.evaluation.reports import plots
from everview.evaluation.reports.beside import overview, table_beside
from everview.evaluation.reports.blocks import NOT_RUN, Report, Row, Section, Table, Text
from everview.evaluation.reports.cases import GAP, LEAST_WIDTH, MOST_WIDTH, _sheet
from everview.evaluation.reports.html import html
from everview.evaluation.reports.inputs import Inputs, read_inputs
from everview.evaluation.reports.markdown import markdown
from everview.evaluation.reports.published import published_tables
from everview.evaluation.reports.report import report
from everview.evaluation.reports.results import read_result
from everview.evaluation.reports.sections import build
from everview.evaluation.runs.run import RunSettings, predict, score
from everview.world.layouts.registry import LAYOUTS

sys.path.insert(0, str(Path(__file__).parent))
from benchmark_folders import WorldPredictor, world_clips
from result_files import result, write

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"


def whole_tum(value=0.031):
    """As many clips as the set has."""
    scores = {"ate": value, "rpe_translation": 0.02, "rpe_rotation": 0.4}
    clips = {f"clip{i}": (scores, ["f0", "f1"]) for i in range(8)}
    return result(clips=clips, protocol__frames=None)


def beside(tmp_path, content, setting="Sim(3)"):
    """Our rows of a published table: name -> cells."""
    read = read_result(write(tmp_path / "ours.json", content))
    (table,) = [t for t in published_tables(read.benchmark) if t.setting.startswith(setting)]
    rows = table_beside(table, [read], BENCHMARKS[read.benchmark]).rows
    return {row.cells[0]: row for row in rows if row.kind != "plain"}


def test_a_result_of_the_whole_set_stands_beside_the_published_rows(tmp_path):
    row = beside(tmp_path, whole_tum())["Everview: mini"]
    assert row.kind == "ours"
    assert row.cells[1:4] == ("0.031", "0.020", "0.400")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (result(protocol__frames=None), "3 clips, the set has 8"),
        (whole_tum() | {"protocol": whole_tum()["protocol"] | {"alignment": "se3"}}, "alignment"),
        (whole_tum() | {"protocol": whole_tum()["protocol"] | {"frames": 5}}, "frames 5"),
    ],
)
def test_what_was_measured_otherwise_is_not_run_and_says_why(content, reason, tmp_path):
    row = beside(tmp_path, content)["Everview: mini"]
    assert row.kind == "absent"
    assert set(row.cells[1:-1]) == {NOT_RUN}
    assert reason in row.cells[-1]


def test_generated_data_fill_no_published_row(tmp_path):
    content = whole_tum(0.0123)
    content["data"] |= {"generated": True}
    row = beside(tmp_path, content)["Everview: mini"]
    assert row.kind == "absent"
    assert set(row.cells[1:-1]) == {NOT_RUN}
    assert "generated data" in row.cells[-1]
    assert "tum-pose-published" not in figure_names(content)
    read = read_result(tmp_path / "ours.json")
    (row,) = overview({"tum-pose": [read]}, [BENCHMARKS["tum-pose"]]).rows
    assert row.kind == "absent"
    assert row.cells[2] == NOT_RUN
    assert "generated data" in row.cells[3]


def test_a_generated_benchmark_has_its_number_in_the_overview(tmp_path):
    content = result("longworld")
    content["data"] |= {"generated": True}
    read = read_result(write(tmp_path / "r.json", content))
    (row,) = overview({"longworld": [read]}, [BENCHMARKS["longworld"]]).rows
    assert row.kind == "ours"


def test_models_without_a_result_are_not_run_and_hold_no_number(tmp_path):
    rows = beside(tmp_path, whole_tum())
    absent = {name: row for name, row in rows.items() if row.kind == "absent"}
    assert "Everview: lch01/StreamVGGT" in absent
    for row in absent.values():
        assert set(row.cells[1:-1]) == {NOT_RUN}
        assert "weights" in row.cells[-1]


def test_a_table_about_one_clip_takes_the_score_of_that_clip(tmp_path):
    names = list(result("long3d")["metrics"])
    clips = {
        n: (dict.fromkeys(names, v), ["f0"]) for n, v in (("library", 0.5), ("dormitory", 0.7))
    }
    content = result("long3d", clips, protocol__frames=None, protocol__stride=None)
    assert beside(tmp_path, content, "Library")["Everview: mini"].cells[1] == "0.500"
    assert beside(tmp_path, content, "Dormitory")["Everview: mini"].cells[1] == "0.700"
    row = beside(tmp_path, content, "Classroom")["Everview: mini"]
    assert (row.kind, row.cells[1]) == ("absent", NOT_RUN)


class Page(HTMLParser):
    """What a page would load, and its words."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.tags, self.words, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
        for name, value in attrs:
            is_link = tag == "a" and name == "href"
            if name in ("src", "href", "xlink:href", "srcset", "data") and not is_link:
                self.loads.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_repositorys_results_become_a_page_that_needs_nothing_else(tmp_path, capsys):
    assert main(["eval", "report", str(RESULTS), "-o", str(tmp_path / "r")]) == 0
    said = capsys.readouterr().out
    assert "skipped: ablation.json (a file of 'everview ablation')" in said
    text = (tmp_path / "r" / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert all(load.startswith(("data:", "#")) for load in page.loads), page.loads
    assert "script" not in page.tags
    assert "url(http" not in text
    assert "default-src 'none'" in text
    words = " ".join(page.words)
    for needed in ("real_footage.json", "Latency", "StreamVGGT", "Left out", NOT_RUN):
        assert needed in words
    footage = json.loads((RESULTS / "real_footage.json").read_text())
    mean = footage["sequences"][0]["groups"][0]["scores"]["abs_rel"]["mean"]
    assert f"{mean:.3f}" in words


def test_markdown_names_figures_that_exist(tmp_path):
    written = report([RESULTS / "procedural_mini.json"], tmp_path)
    text = written.markdown.read_text()
    named = re.findall(r"\]\((figures/[^)]+)\)", text)
    assert named
    assert all((tmp_path / name).stat().st_size > 0 for name in named)


def test_units_are_those_of_the_score_and_unusual_frames_are_told(tmp_path):
    content = result("longworld", protocol__frames=120)
    text = report([write(tmp_path / "r.json", content)], tmp_path / "out").markdown.read_text()
    assert "RMS error of the rotation from frame to frame (degrees)" in text
    assert "RMS distance of camera centres (m)" in text
    assert "frames 120" in text


def test_equal_inputs_give_equal_bytes(tmp_path):
    files = [RESULTS / "procedural_mini.json", RESULTS / "latency_scaling.json"]
    one, two = (report(files, tmp_path / name) for name in ("one", "two"))
    assert one.html.read_bytes() == two.html.read_bytes()
    assert one.markdown.read_bytes() == two.markdown.read_bytes()


def test_curves_of_results_are_drawn():
    content = result("longworld")
    for clip in content["clips"]:
        clip["curves"] = {
            "frame": [0.0, 1.0], "position_error": [0.0, 0.2], "dense_frame": [0.0, 1.0],
            "abs_rel": [0.1, None], "confidence": [1.0, 2.0], "confidence_error": [0.5, 0.1],
        }  # fmt: skip
    names = figure_names(content)
    assert {"longworld-position_error", "longworld-abs_rel", "longworld-reliability"} <= names


def figure_names(content, tmp="/nonexistent/r.json"):
    from everview.evaluation.reports import results

    read = results._benchmark(Path(tmp), content)
    return {figure.name for figure in build(Inputs(results=(read,))).figures()}


def test_a_published_plot_needs_a_row_of_ours(tmp_path):
    assert "tum-pose-published" in figure_names(whole_tum())
    assert "tum-pose-published" not in figure_names(result())


def test_skipped_clips_are_told(tmp_path):
    content = result(data__skipped=[{"clip": "lost", "reason": "not finite"}])
    written = report([write(tmp_path / "r.json", content)], tmp_path / "out")
    assert "lost: not finite" in written.html.read_text()


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Results of a predictor with known faults; predictions and data are still on disk."""
    folder = tmp_path_factory.mktemp("ran")
    sequences = world_clips("benchmark-sintel")
    LAYOUTS["benchmark-sintel"](folder / "data", sequences)
    for name in ("sintel-video", "sintel-pose"):
        settings = RunSettings(
            benchmark=BENCHMARKS[name], data=folder / "data", store=folder / f"{name}.predictions"
        )
        names = [clip.name for clip in settings.clips()[0]]
        predictor = WorldPredictor(sequences, names, first=1, change=fault)
        predict(settings, predictor, predictor.facts())
        write(folder / f"{name}.json", score(settings))
    return folder / "sintel-video.json"


def fault(values, index, count):
    values["depth"] = values["depth"] * (1 + 0.1 * index)
    values["pose"][1, 3] += 0.05 * index**2


def test_best_and_worst_clips_are_pictured_with_the_truth(ran, tmp_path):
    written = report([ran], tmp_path)
    sheets = sorted((tmp_path / "figures").glob("*-depth.jpg"))
    assert len(sheets) == 2
    with Image.open(sheets[0]) as sheet:
        assert sheet.width > 4 * LEAST_WIDTH  # input, truth, prediction, error
    text = written.html.read_text()
    result = read_result(ran)
    best = min(result.parts[0].clips, key=lambda clip: clip.scores["abs_rel"])
    assert re.search(rf"best: AbsRel [\d.]+ \({best.name}\)", text)
    assert "data:image/jpeg;base64," in text


def test_paths_are_drawn_where_poses_are_known(ran, tmp_path):
    report([ran.with_name("sintel-pose.json")], tmp_path)
    plots = sorted((tmp_path / "figures").glob("*-path.svg"))
    assert len(plots) == 2
    assert all(word in plots[0].read_text() for word in ("true", "ours"))


def test_figures_of_files_with_equal_names_are_told_apart(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(RESULTS / "procedural_mini.json", tmp_path / folder)
    inputs = read_inputs([tmp_path / "a", tmp_path / "b"])
    names = [figure.name for figure in build(inputs).figures()]
    assert len(names) == len(set(names)) == 2


@pytest.mark.parametrize("width", [28, 140, 518])
def test_pictures_of_any_size_become_a_sheet_of_usual_size(width):
    picture = np.zeros((width // 2, width, 3), np.uint8)
    sheet = _sheet([[picture] * 4] * 3, ["input", "true depth", "predicted depth", "error"])
    assert 4 * LEAST_WIDTH <= sheet.width <= 4 * MOST_WIDTH + 3 * GAP


def test_without_the_data_predictions_are_shown_alone(ran, tmp_path):
    shutil.copytree(ran.parent, tmp_path / "moved")
    (tmp_path / "moved" / "sintel-video.predictions" / "source.json").unlink()
    report([tmp_path / "moved" / "sintel-video.json"], tmp_path / "out")
    sheets = sorted((tmp_path / "out" / "figures").glob("*-depth.jpg"))
    with Image.open(sheets[0]) as sheet:
        assert sheet.width < 2 * LEAST_WIDTH  # the prediction alone
    assert not list((tmp_path / "out" / "figures").glob("*-path.svg"))


def test_without_predictions_a_word_takes_the_place_of_pictures(ran, tmp_path):
    shutil.copy(ran, tmp_path / "alone.json")
    written = report([tmp_path / "alone.json"], tmp_path / "out")
    assert "predictions are not on disk" in written.html.read_text()
    assert not list((tmp_path / "out" / "figures").glob("*.jpg"))


def test_no_case_is_asked_for_and_none_is_shown(ran, tmp_path, capsys):
    assert main(["eval", "report", str(ran), "-o", str(tmp_path), "--cases", "0"]) == 0
    assert not list((tmp_path / "figures").glob("*.jpg"))
    assert main(["eval", "report", str(ran), "-o", str(tmp_path), "--cases", "-1"]) == 2
    assert "--cases" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (None, 2, "name result files"),
        ("{", 3, "bad.json is no JSON"),
        ('{"format": "other"}', 3, "none of 1 files"),
        ('{"format": "everview latency scaling"}', 3, "streaming_seconds"),
    ],
)
def test_calls_that_cannot_be_done_say_so(text, code, words, tmp_path, capsys):
    files = []
    if text is not None:
        (tmp_path / "bad.json").write_text(text)
        files = [str(tmp_path / "bad.json")]
    assert main(["eval", "report", *files, "-o", str(tmp_path / "out")]) == code
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_lists_are_skipped_like_other_files(tmp_path):
    (tmp_path / "list.json").write_text("[]")
    write(tmp_path / "r.json", result())
    inputs = read_inputs([tmp_path])
    assert len(inputs.results) == 1
    assert inputs.skipped == ("list.json (a JSON list)",)


def test_names_from_files_cannot_break_a_page():
    nasty = '<img src="x" onerror=1> a|b *c*'
    table = Table(columns=("x",), rows=(Row(cells=(nasty,)), Row(cells=(NOT_RUN,))))
    content = Report(title="t", sections=(Section(title="s", blocks=[Text(text=nasty), table]),))
    page = html(content)
    assert "<img" not in page
    assert f"<em>{NOT_RUN}</em>" in page
    assert "a\\|b \\*c\\*" in markdown(content)
    assert f"*{NOT_RUN}*" in markdown(content)


def test_absent_matplotlib_is_told_with_the_line_to_install_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    call = ["eval", "report", str(RESULTS / "procedural_mini.json"), "-o", str(tmp_path)]
    assert main(call) == 4
    assert plots.INSTALL in capsys.readouterr().err
