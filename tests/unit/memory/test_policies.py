import pytest

from everview.errors import ConfigError
from everview.memory import POLICIES, parse


@pytest.mark.parametrize("text", ["full", "auto"])
def test_full_is_parsed_and_what_auto_means_for_now(text):
    assert parse(text).text == "full"
    assert "full" in POLICIES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "'nothing' is unknown; choose from full"),
        ("full:tokens=3", "no option 'tokens'"),
    ],
)
def test_an_unknown_policy_or_option_is_named(text, message):
    with pytest.raises(ConfigError, match=message):
        parse(text)
