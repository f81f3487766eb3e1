"""Three long commands are interrupted once, at a moment that a seed draws: see interrupts.py."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from faults.interrupts import COMMANDS, disturb, undisturbed

IN_TURN = {"train": "SIGTERM", "export": "SIGINT", "objects": "SIGTERM"}
"""What there is time for in every run of the tests; `make soak` has all, ten times for each signal."""


@pytest.mark.slow
@pytest.mark.parametrize(("command", "name"), IN_TURN.items())
def test_nothing_is_lost(command: str, name: str, workshop: Path) -> None:
    draw = random.Random(command)
    seconds, expected = undisturbed(COMMANDS[command], workshop)
    disturb(COMMANDS[command], workshop, name, draw.uniform(0.3, 0.9) * seconds, expected)
