"""Lists what users can name: Python names, commands and their options, plugins, presets, recipes.

`python tests/surface.py > tests/surface-0.1.json` writes the list that test_surface.py compares with; it was
made from the last commit before lse-train was split off lse-dec, and a release makes it anew.
"""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from lse_core.cli import main
from lse_core.plugins import registry
from lse_core.plugins.manager import KINDS

PACKAGES = ("lse_core", "lse_data", "lse_dec", "lse_train", "lse_export", "lse_seg", "lse_soft")
ROOT = Path(__file__).parents[1]


def modules() -> Iterator[tuple[str, Path]]:
    """Packages and the modules directly in them; what lies deeper is told apart by no one."""
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        folder = Path(spec.origin).parent
        yield package, folder / "__init__.py"
        for path in sorted(folder.iterdir()):
            if path.suffix == ".py" and path.stem != "__init__":
                yield f"{package}.{path.stem}", path
            elif (path / "__init__.py").is_file():
                yield f"{package}.{path.name}", path / "__init__.py"


def names(path: Path) -> list[str]:
    """`__all__` of a source file, without running it."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return sorted(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    return []


def commands(command: click.Command, path: str, context: click.Context) -> Iterator[tuple[str, list[str]]]:
    """Every command under `command` with the options and arguments it takes."""
    options = [name for p in command.params for name in [*p.opts, *p.secondary_opts]]
    yield path, sorted(options)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from commands(child, f"{path} {name}", click.Context(child, context, name))


def surface() -> dict[str, Any]:
    """The list, as JSON values."""
    return {
        "names": {module: found for module, path in modules() if (found := names(path))},
        "commands": dict(commands(main, "lse", click.Context(main))),
        "plugins": {kind: list(registry().names(kind)) for kind in KINDS},
        "recipes": sorted(path.name for path in (ROOT / "tools" / "recipes").glob("*.yaml")),
    }


if __name__ == "__main__":
    print(json.dumps(surface(), indent=1, sort_keys=True))
