"""Every fault of the tables is answered by one line, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import data_sets, environment, folders, onnx_files, options, pictures, runs, tensors, untrusted
from faults.fault import Fault, judge

TABLES = (options, pictures, folders, onnx_files, runs, data_sets, tensors, environment, untrusted)
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
