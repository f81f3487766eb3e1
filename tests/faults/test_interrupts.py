"""Every long command is interrupted once, at a moment that a seed draws: interrupts.py."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from faults.interrupts import COMMANDS, SIGNALS, disturb, undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_lost(command: str, workshop: Path) -> None:
    draw = random.Random(command)
    seconds, expected = undisturbed(COMMANDS[command], workshop)
    # the signals take turns: together they would take a fifth of the time of all tests; `make soak` has both
    name = list(SIGNALS)[list(COMMANDS).index(command) % 2]
    disturb(COMMANDS[command], workshop, name, draw.uniform(0.3, 0.9) * seconds, expected)
