"""Pages of results that are written again keep what people wrote on them."""

import runpy
from pathlib import Path
from typing import Any

import pytest

TOOLS = Path(__file__).parents[1] / "tools"
TOOL: dict[str, Any] = runpy.run_path(str(TOOLS / "bench" / "answers.py"))
PAGES = sorted((TOOLS.parent / "docs" / "results").glob("*.md"))

MADE = "# Title\n\n| 1 |\n\n## Goals\n\nfive\n\n## Costs\n\n| 2 |\n\n## How it was measured\n\nhere\n"
ANSWER = "## Answer\n\nYes: ## is no heading here.\n\n## Also tried\n\nno\n\n"


@pytest.mark.parametrize("follows", ["## Goals", "## Costs", "## How it was measured"])
def test_the_answer_stays_in_its_place(follows: str) -> None:
    earlier = MADE.replace("| 2 |", "| old |").replace(follows, ANSWER + follows)
    assert TOOL["with_answer"](MADE, earlier) == MADE.replace(follows, ANSWER + follows)


def test_it_goes_before_how_it_was_measured_where_its_place_is_gone() -> None:
    earlier = MADE.replace("## Costs", ANSWER + "## Costs")
    fewer = MADE.replace("## Costs\n\n| 2 |\n\n", "")
    how = "## How it was measured"
    # the section "Costs" was not made this time, so it stays, too, rather than being lost
    assert TOOL["with_answer"](fewer, earlier) == fewer.replace(how, f"{ANSWER}## Costs\n\n| 2 |\n\n{how}")


def test_a_page_without_an_answer_is_written_as_it_is() -> None:
    for earlier in ("", MADE, "something else"):
        assert TOOL["with_answer"](MADE, earlier) == MADE
    answered = MADE.replace("## Goals", ANSWER + "## Goals")
    assert TOOL["with_answer"](answered, answered.replace("Yes", "No")) == answered  # its own comes first


def test_what_a_script_prints_is_written_whole_or_not_at_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "new" / "page.md"
    with TOOL["printed_to"](page):
        print(MADE, end="")
    assert page.read_text(encoding="utf-8") == MADE
    answered = MADE.replace("## Costs", ANSWER + "## Costs")
    page.write_text(answered, encoding="utf-8")
    with pytest.raises(ZeroDivisionError), TOOL["printed_to"](page):
        print("half of it", 1 // 0)
    assert page.read_text(encoding="utf-8") == answered
    with TOOL["printed_to"](page):
        print(MADE, end="")
    assert page.read_text(encoding="utf-8") == answered
    assert capsys.readouterr().out == ""
    with TOOL["printed_to"](None):
        print("shown")
    assert capsys.readouterr().out == "shown\n"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_page_of_results_keeps_its_answer(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    start = page.find("\n## Answer\n") + 1
    if not start:
        pytest.skip("it has none")
    # a script writes all but the answer, with the sections of this one and the next
    rest = [page.find(f"\n{h}") + 1 for h in TOOL["_headings"](page[start + 5 :]) if h != "## Also tried"]
    made = page[:start] + page[min(rest) :]
    assert TOOL["with_answer"](made, page) == page


def test_no_script_writes_a_page_otherwise() -> None:
    for script in sorted([*(TOOLS / "bench").glob("*.py"), *TOOLS.glob("*.py")]):
        text = script.read_text(encoding="utf-8")
        if "docs/results" in text and "soft" not in script.stem and script.stem != "answers":
            assert "from answers import" in text, script.name
