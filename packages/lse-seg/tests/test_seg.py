"""lse-seg says plainly what it does not do yet."""

import importlib
from importlib import metadata

import pytest
from click.testing import CliRunner

import lse_seg
from lse_core.cli import main
from lse_core.errors import LSEError


@pytest.mark.parametrize("name", lse_seg.PROMISED)
def test_promised_names_say_that_they_are_not_there(name: str) -> None:
    with pytest.raises(LSEError, match=f"lse_seg.{name} is not in lse-seg .*lse_dec.adapt"):
        getattr(lse_seg, name)


def test_from_import_keeps_the_message() -> None:
    with pytest.raises(ImportError, match="comes with a later release"):
        from lse_seg import CanonicalizedBackbone  # noqa: F401


def test_other_names_are_ordinary_attribute_errors() -> None:
    assert not hasattr(importlib.import_module("lse_seg"), "Backbone")


def test_version_is_that_of_the_distribution() -> None:
    assert lse_seg.__version__ == metadata.version("lse-seg")


def test_command_fails_with_one_line() -> None:
    result = CliRunner().invoke(main, ["seg"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("error: mmsegmentation integration is not in lse-seg")
    assert "Traceback" not in result.stderr
