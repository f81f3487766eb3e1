"""Hands the files of `odd_files.py` to tests: test modules import nothing from each other."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def load() -> ModuleType:
    name = "lse_export_odd_files"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("odd_files.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def odd() -> ModuleType:
    """The module itself: BROKEN, FINE and what builds files."""
    return load()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each odd file: `broken` and `fine` are keys of BROKEN and FINE, `anyhow` of both."""
    module = load()
    names = {"broken": list(module.BROKEN), "fine": list(module.FINE)}
    names["anyhow"] = names["broken"] + names["fine"]
    for argument, values in names.items():
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, values)
