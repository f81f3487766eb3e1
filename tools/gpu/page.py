"""The page and what is known of a part after it ran."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from parts import Part

__all__ = ["Outcome", "page"]


@dataclass(frozen=True)
class Outcome:
    """One part.

    Attributes:
        part: what ran.
        state: "done", or in words why it is not: failed, stopped, left out, not begun.
        seconds: its time, with its start.
        shown: Markdown that it printed.
        log: the rest that it said.
        numbers: JSON that it wrote, by the names of the files.
    """

    part: Part
    state: str
    seconds: float = 0.0
    shown: str = ""
    log: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether something is wrong; a part for which there was no time or no package is not."""
        return self.state.startswith(("failed", "stopped"))

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.part.name,
            "state": self.state,
            "seconds": round(self.seconds, 1),
            "command": self.part.command,
            "numbers": self.numbers,
        }


def page(outcomes: Sequence[Outcome], seconds: float) -> str:
    """The page in Markdown: what became of the parts, then what each printed."""
    lines = [
        "# LSE on a GPU",
        "",
        "**Question.** Does everything that needs a GPU work on this one, and how fast is it?",
        "",
        "| part | | result | seconds |",
        "|---|---|---|---|",
        *(f"| {o.part.name} | {o.part.title} | {o.state} | {o.seconds:.0f} |" for o in outcomes),
        "",
    ]
    for outcome in outcomes:
        title = outcome.part.title
        lines += [f"## {title[0].upper()}{title[1:]}", "", f"`{outcome.part.command}`", ""]
        lines += [outcome.state[0].upper() + outcome.state[1:] + ".", ""] if outcome.state != "done" else []
        lines += [_below(outcome.shown), ""]
    lines += [
        "## How it was measured",
        "",
        f"`python tools/gpu/check.py`, {seconds:.0f} s in all, each part a process of its own. The rows of a "
        "table take turns, and a ratio is the median over the rounds, with quartiles in brackets. Models "
        "have random weights and, unless a row says otherwise, two sites (the image and the first latent "
        "stage), the residual rule, Anderson with 5 steps and separable warps that are not the identity. "
        "Training is a forward and a backward pass without an optimiser.",
    ]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _below(text: str) -> str:
    """A page as a part of another: without its title, question and method, its headings one level lower."""
    text = re.sub(r"\A# .*\n", "", text.strip() + "\n")
    text = re.sub(r"^\*\*Question\.\*\*.*?(?=\n\n)", "", text, flags=re.MULTILINE | re.DOTALL)
    text = text.partition("## How it was measured")[0]
    return re.sub(r"^(#+) ", r"#\1 ", text, flags=re.MULTILINE).strip()
