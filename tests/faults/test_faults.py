"""Every fault of the tables is answered by one line, and nothing is lost."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from faults import (
    data_sets,
    engines,
    environment,
    folders,
    onnx_files,
    options,
    pictures,
    runs,
    scaling,
    tensors,
    untrusted,
)
from faults.fault import Fault, judge

ROOT = Path(__file__).parents[2]
TABLES = (
    *(options, pictures, folders, onnx_files, engines, runs, data_sets, scaling, tensors),
    *(environment, untrusted),
)
FAULTS = {
    f"{table.__name__.rpartition('.')[2]}: {case.name}": case for table in TABLES for case in table.FAULTS
}


def test_no_two_faults_have_one_name() -> None:
    assert len(FAULTS) == sum(len(table.FAULTS) for table in TABLES)
    assert len(FAULTS) >= 250


@pytest.mark.parametrize("name", FAULTS)
def test_answered(name: str, place: Path) -> None:
    case: Fault = FAULTS[name]
    judge(case, place)


def test_the_page_is_of_these_tables() -> None:
    spec = importlib.util.spec_from_file_location("reliability", ROOT / "tools" / "reliability.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = ROOT / "docs" / "reliability.md"
    assert page.read_text(encoding="utf-8") == module.page(), "run python tools/reliability.py"
