"""All packages have one version, and need one another in that version."""

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture
def wheels() -> Any:
    spec = importlib.util.spec_from_file_location("wheels", ROOT / "tools" / "wheels.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_versions_agree(wheels: Any) -> None:
    version = wheels.common()
    assert wheels.wrong(version) == []
    projects = {
        path: tomllib.loads(path.read_text())["project"] for path in ROOT.glob("packages/*/pyproject.toml")
    }
    assert len(projects) == 8
    for path, project in projects.items():
        assert project["version"] == version
        asked = [project["dependencies"], *project.get("optional-dependencies", {}).values()]
        ours = [text for texts in asked for text in texts if text.startswith("lse-")]
        assert all(text.endswith(f"=={version}") for text in ours), (path, ours)
        package = path.parent / "src" / project["name"].replace("-", "_") / "__init__.py"
        assert f'__version__ = "{version}"' in package.read_text()
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version
    assert len(citation["preferred-citation"]["authors"]) == 7


def test_a_new_version_goes_everywhere(wheels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in list(wheels.files()):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    monkeypatch.setattr(wheels, "ROOT", tmp_path)
    before = wheels.common()
    wheels.set_version("7.8.9rc1")
    assert wheels.common() == "7.8.9rc1"
    assert wheels.wrong("7.8.9rc1") == []
    assert len(wheels.wrong(before)) > 20
    # nothing but versions changed, and not those of others
    for path in wheels.files():
        old = (ROOT / path.relative_to(tmp_path)).read_text()
        assert re.sub(r"7\.8\.9rc1", before, path.read_text()) == old
