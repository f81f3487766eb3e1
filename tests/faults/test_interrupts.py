"""Every long command is interrupted once by each signal, at a moment that a seed draws: interrupts.py."""

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
    for name in SIGNALS:
        disturb(COMMANDS[command], workshop, name, draw.uniform(0.3, 0.9) * seconds, expected)
