"""What the pages show runs as it stands: the tutorials, the concepts, the READMEs.

The blocks of a page run in order, in one empty folder: ```console (each line a command), ```python, and a
block of any language with title="FILE", which is written to that file. Other blocks are only shown. What a
page needs beyond that it says in HTML comments:

    <!-- small: OLD => NEW -->    the test replaces OLD by NEW, because it would take long or need a network
    <!-- first: PAGE.md -->       begin with the first block of another page, which makes pictures
    <!-- needs: MODULE -->        skip the page where this module, or file of the repository, is not installed
    <!-- link: FOLDER -->         a folder of the repository that lies in the folder where the page runs
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from lse_core.cli import main
from lse_core.plugins import registry

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
COMMENT = re.compile(r"<!-- (\w+): (.*?) -->", re.DOTALL)
SITE = "site"  # where the page on plugins installs


class Block(NamedTuple):
    language: str
    title: str
    text: str

    @property
    def runs(self) -> bool:
        return bool(self.title) or self.language in ("console", "python")


def blocks(page: Path) -> list[Block]:
    """What runs on a page, at its small size."""
    text = page.read_text(encoding="utf-8")
    found = [block for block in map(Block._make, FENCE.findall(text)) if block.runs]
    for old, new in (told.split(" => ") for told in said(page, "small")):
        assert any(old in block.text for block in found), f"{page}: nothing says {old!r}"
        found = [block._replace(text=block.text.replace(old, new)) for block in found]
    return found


def said(page: Path, word: str) -> list[str]:
    """What the HTML comments of a page say under a word."""
    return [value for name, value in COMMENT.findall(page.read_text(encoding="utf-8")) if name == word]


PAGES = [
    page
    for pattern in (
        "README.md",
        "packages/*/README.md",
        "docs/*.md",
        "docs/concepts/*.md",
        "docs/tutorials/*.md",
    )
    for page in sorted(ROOT.glob(pattern))
    if any(block.runs for block in map(Block._make, FENCE.findall(page.read_text(encoding="utf-8"))))
]


def command(line: str) -> None:
    """Run one line: `lse` in this process, all else in a shell that finds this environment's programs."""
    words = shlex.split(line, comments=True)
    if words[0] == "lse":
        done = CliRunner().invoke(main, words[1:])
        assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"
        return
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    finished = subprocess.run(line, shell=True, capture_output=True, text=True, env=environment)
    assert finished.returncode == 0, f"{line}\n{finished.stdout}{finished.stderr}"
    if Path(SITE).is_dir():  # plugins are looked for anew
        importlib.invalidate_caches()
        registry.cache_clear()


def run(block: Block, page: Path, names: dict[str, Any]) -> None:
    if block.title:
        Path(block.title).parent.mkdir(parents=True, exist_ok=True)
        Path(block.title).write_text(block.text, encoding="utf-8")
    elif block.language == "python":
        exec(compile(block.text, str(page), "exec"), names)
    else:
        for line in block.text.replace("\\\n", " ").splitlines():
            command(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_page_runs_as_it_stands(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in said(page, "needs"):
        if not (ROOT / module).exists() and find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / SITE))
    for folder in said(page, "link"):
        Path(folder).symlink_to(ROOT / folder)
    names: dict[str, Any] = {"__name__": "page"}
    try:
        for other in said(page, "first"):
            run(blocks(ROOT / other)[0], ROOT / other, names)
        for block in blocks(page):
            run(block, page, names)
    finally:
        registry.cache_clear()
