"""Writing a page of results again: what people wrote on it stays."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path

from lse_core.atomic import replacing

__all__ = ["HOW", "printed_to", "with_answer", "write_page"]

ANSWER, HOW = "## Answer", "## How it was measured"


def with_answer(page: str, earlier: str) -> str:
    """A page that a script has made, with what people wrote on the `earlier` page.

    That is its answer, with the sections after it that the script does not write. It goes before the section
    that followed it, or before "How it was measured" where the script writes that section no more.
    """
    made = set(_headings(page))
    headings = _headings(earlier)
    if ANSWER not in headings or ANSWER in made:
        return page
    rest = headings[headings.index(ANSWER) + 1 :]
    after = next((heading for heading in rest if heading in made or heading == HOW), None)
    written = earlier[_place(earlier, ANSWER) : _place(earlier, after)].strip()
    place = _place(page, after if after in made else HOW)
    return f"{page[:place].rstrip()}\n\n{written}\n\n{page[place:]}".rstrip() + "\n"


def write_page(path: Path, page: str) -> None:
    """Write a page, whole or not at all, `with_answer` of the page that was there."""
    earlier = path.read_text(encoding="utf-8") if path.exists() else ""
    with replacing(path, overwrite=True) as partial:
        partial.write_text(with_answer(page, earlier), encoding="utf-8")


@contextmanager
def printed_to(path: Path | None) -> Iterator[None]:
    """Write what the block prints as a page; without a path it is printed."""
    if path is None:
        yield
        return
    with redirect_stdout(StringIO()) as printed:
        yield
    write_page(path, printed.getvalue())


def _headings(page: str) -> list[str]:
    return re.findall(r"^## .*$", page, re.MULTILINE)


def _place(page: str, heading: str | None) -> int:
    """Where a heading begins; the end of the page where it has no such heading."""
    found = heading and re.search(rf"^{re.escape(heading)}$", page, re.MULTILINE)
    return found.start() if found else len(page)
