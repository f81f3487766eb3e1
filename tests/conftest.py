"""Hands NVIDIA's parser and builder to tests that have an exported file; test modules import no helpers."""

from __future__ import annotations

import importlib.util
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest


def load() -> ModuleType:
    name = "lse_nvidia_network"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("nvidia_network.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def nvidia() -> ModuleType | None:
    """`nvidia_network.py`; None where TensorRT for RTX has no wheel (other than 64-bit Intel/AMD Linux)."""
    return load() if find_spec("tensorrt_rtx") is not None else None
