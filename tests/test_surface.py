"""What users could name in version 0.1 still works, or says in one line what replaced it."""

import csv
import json
import re
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner

import lse_dec
from lse_core.cli import main
from lse_core.errors import UnknownNameError
from lse_core.plugins import registry
from lse_train import RunConfig, fit
from lse_train.recipes import read_recipe

HERE = Path(__file__).parent
BEFORE: dict[str, Any] = json.loads((HERE / "surface-0.1.json").read_text(encoding="utf-8"))
EXPECTED: dict[str, list[list[float]]] = json.loads(
    (HERE / "checkpoints-0.1" / "expected.json").read_text(encoding="utf-8")
)
TOLD = re.compile(r"\bis now\b|\breplaced by\b|\bis gone\b", re.IGNORECASE)
"""How a line begins that says what became of a name."""


def told(text: str) -> bool:
    """Whether an error's text is one line that says what became of a name."""
    return bool(TOLD.search(text)) and "\n" not in text


@pytest.mark.parametrize("module", BEFORE["names"])
def test_python_names(module: str) -> None:
    answers = {}
    for name in BEFORE["names"][module]:
        try:
            getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            answers[name] = str(error)
    assert [f"{name}: {text}" for name, text in answers.items() if not told(text)] == []


@pytest.mark.parametrize("path", BEFORE["commands"])
def test_commands_and_their_options(path: str) -> None:
    command: click.Command = main
    context = click.Context(main)
    for word in path.split()[1:]:
        assert isinstance(command, click.Group)
        found = command.get_command(context, word)
        assert found is not None, path
        command, context = found, click.Context(found, context, word)
    options = {name for p in command.params for name in [*p.opts, *p.secondary_opts]}
    missing = {name for name in BEFORE["commands"][path] if name.startswith("-")} - options
    assert not missing, f"{path} takes {', '.join(missing)} no more"


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in BEFORE["plugins"].items() for name in names]
)
def test_plugins(kind: str, name: str) -> None:
    if kind == "exporter":  # nothing ever asked for these
        with pytest.raises(UnknownNameError, match="exporter"):
            registry().get(kind, name)
        return
    registry().get(kind, name)


@pytest.mark.parametrize("name", BEFORE["recipes"])
@pytest.mark.filterwarnings("ignore::lse_core.errors.LSEWarning")
def test_recipes(name: str) -> None:
    path = HERE.parent / "tools" / "recipes" / name
    if name == "digits.yaml":  # what others are made over, no recipe by itself
        assert path.is_file()
        return
    read_recipe(path, "cpu")


@pytest.mark.filterwarnings("ignore::lse_core.errors.LSEWarning")
def test_the_old_spelling_of_a_profile() -> None:
    result = CliRunner().invoke(main, ["train", "no.yaml", "--scale", "cpu"])
    assert "no.yaml" in result.output, result.output  # it is the file that is missing, not the option


@pytest.mark.parametrize("name", EXPECTED)
def test_checkpoints_answer_as_they_did(name: str) -> None:
    model = lse_dec.load(HERE / "checkpoints-0.1" / name)
    images = torch.linspace(0, 1, 2 * 32 * 32).view(2, 1, 32, 32)
    with torch.no_grad():
        answer = model(images)[:, :10]
    torch.testing.assert_close(answer, torch.tensor(EXPECTED[name]), atol=2e-4, rtol=1e-4)


def test_a_finished_run_is_known_again(tmp_path: Path) -> None:
    folder = HERE / "checkpoints-0.1" / "run"
    shutil.copytree(folder, tmp_path / "run")
    config = RunConfig.parse(json.loads((folder / "settings.json").read_text(encoding="utf-8")))
    assert fit(config, tmp_path / "run").steps == 3
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (folder / "metrics.csv").read_bytes()


def test_equal_settings_give_the_run_of_before(tmp_path: Path) -> None:
    folder = HERE / "checkpoints-0.1" / "run"
    fit(RunConfig.parse(json.loads((folder / "settings.json").read_text(encoding="utf-8"))), tmp_path / "run")
    before, now = (
        list(csv.DictReader((place / "metrics.csv").open(encoding="utf-8")))
        for place in (folder, tmp_path / "run")
    )
    assert [row["step"] for row in now] == [row["step"] for row in before]
    for old, new in zip(before, now, strict=True):
        for key, value in old.items():
            assert float(new[key]) == pytest.approx(float(value), rel=1e-3, abs=1e-6), key
