"""Every long command is interrupted once, as soon as it shows that it has begun: see interrupts.py.

The commands are forks of one process that has imported everything, for imports take longer than the commands.
`make soak` starts each as a process of its own and interrupts it anywhere; so does tests/test_demo.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from faults.forks import Fork
from faults.interrupts import COMMANDS, disturb, once_begun, undisturbed

IN_TURN = {
    "train": "SIGTERM",
    "recipe": "SIGINT",
    "export": "SIGINT",
    "int8": "SIGTERM",
    "digits": "SIGINT",
    "scenes": "SIGTERM",
    "objects": "SIGINT",
    "mmseg": "SIGTERM",
    "measure": "SIGINT",
}
"""The signal of each; tests/test_demo.py interrupts the demo by SIGINT."""


@pytest.mark.slow
@pytest.mark.parametrize(("command", "name"), IN_TURN.items())
def test_nothing_is_lost(command: str, name: str, workshop: Path) -> None:
    seconds, expected = undisturbed(COMMANDS[command], workshop, Fork)
    outcome = disturb(COMMANDS[command], workshop, name, once_begun(0.0, seconds / 2), expected, Fork)
    # an export neither says nor writes anything before its end, which may come first on a busy machine
    assert outcome == "interrupted" or command in ("export", "int8")


def test_every_long_command_is_interrupted() -> None:
    assert {*IN_TURN, "demo"} == set(COMMANDS)
