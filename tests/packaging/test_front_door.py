import json
import re
import subprocess
import sys

import pytest

import everview

COPYLEFT = re.compile(r"\b[AL]?GPL|GNU", re.IGNORECASE)


def modules_after(code):
    """Names of all modules that are loaded after some code ran in a new interpreter."""
    code = f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import everview",
        "import everview; everview.Config; everview.presets; everview.__version__",
        "from everview.cli.main import main; assert main(['--help']) == 0",
        "from everview.cli.main import main; assert main(['models', '--help']) == 0",
    ],
)
def test_answers_that_need_no_network_come_without_torch(code):
    loaded = modules_after(code)
    assert "everview" in loaded
    assert "torch" not in loaded


def test_every_public_name_exists_and_is_listed():
    for name in everview.__all__:
        assert getattr(everview, name) is not None
        assert name in dir(everview)
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", everview.__version__)


def test_rooms_are_reached_as_attributes_without_importing_them_first():
    code = """
import everview
assert callable(everview.memory.parse)
assert everview.memory.POLICIES
assert callable(everview.world.sequence)
assert everview.errors.ConfigError.exit_code == 2
"""
    modules_after(code)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'everview' has no attribute 'lode'"):
        _ = everview.lode


def test_no_core_dependency_is_under_the_gpl_or_an_unknown_licence(core):
    assert len(core) > 10
    for name, dist in core.items():
        licence = licence_of(dist.metadata)
        assert licence, f"{name} states no licence"
        assert not COPYLEFT.search(licence), f"{name}: {licence}"


def licence_of(metadata):
    """SPDX expression, else classifiers, else the first line of the free text."""
    classifiers = [c for c in metadata.get_all("Classifier") or () if c.startswith("License ::")]
    text = (metadata.get("License") or "").strip().splitlines() or [""]
    return metadata.get("License-Expression") or " ".join(classifiers) or text[0]


def test_the_licence_check_would_notice():
    assert COPYLEFT.search("GPL-3.0-or-later")
    assert COPYLEFT.search("License :: OSI Approved :: GNU Lesser General Public License v3")
    assert not COPYLEFT.search("MPL-2.0 AND MIT")
