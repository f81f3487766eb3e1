"""What commands of several packages share: NAME=VALUE settings."""

import click
import pytest

from lse_core.commands.common import read_settings


def test_settings_are_json_where_they_read_as_json() -> None:
    given = ["ratio=2.5", "grid=[4, 4]", "name=a=b", "flag=true", "empty=", "gone=null"]
    wanted = {"ratio": 2.5, "grid": (4, 4), "name": "a=b", "flag": True, "empty": "", "gone": None}
    assert read_settings(given) == wanted


@pytest.mark.parametrize("pair", ["ratio", "=2"])
def test_settings_without_a_name_or_a_value_are_refused(pair: str) -> None:
    with pytest.raises(click.UsageError, match=f"NAME=VALUE.*got {pair!r}"):
        read_settings([pair])
