"""The documentation site: it builds without a warning, and lists every public name and command."""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")
import surface
from mkdocstrings import Inventory

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built strictly: a dead link, a missing anchor or a name that is not found ends the build.

    Without --quiet, which would keep mkdocs from counting its warnings.
    """
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-f", str(ROOT / "mkdocs.yml"), "-d", str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"},
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    with (site / "objects.inv").open("rb") as file:
        listed = Inventory.parse_sphinx(file)
    names = [f"{module}.{name}" for module, path in surface.modules() for name in surface.names(path)]
    assert len(names) > 500
    assert [name for name in names if name not in listed] == []


def test_every_command_is_on_the_page_of_commands(site: Path) -> None:
    page = (site / "commands.html").read_text(encoding="utf-8")
    headings = set(re.findall(r'<h\d id="[^"]*">([^<]*)<', page))
    assert set(surface.surface()["commands"]) - headings == set()


def test_pages_need_nothing_from_elsewhere(site: Path) -> None:
    """The site opens from a folder without a network: no script, font or style comes from another place."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|link|img)\b[^>]*\b(?:src|href)="(https?:[^"]+)"', text)
        assert [u for u in fetched if "canonical" not in u] == [], page


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here; .ci/run installs Debian's")
def test_pages_say_which_version_they_are_of(site: Path) -> None:
    for page in ("index.html", "tutorials/measure.html", "api/lse_core.html"):
        assert f"LSE {version('lse-core')}" in (site / page).read_text(encoding="utf-8"), page


def test_search_works_from_a_folder(site: Path) -> None:
    """Browsers start no worker from a file; assets/iframe-worker.js stands in for it."""
    assert BROWSER
    page = f"{(site / 'index.html').as_uri()}?q=monotone"
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom")
    done = subprocess.run([BROWSER, *options, page], capture_output=True, text=True, timeout=120)
    assert re.search(r"search-result__meta\">\d+ matching documents", done.stdout), done.stdout[-2000:]
