"""Pages of the documentation site that are made from what exists: API, commands, packages' pages, menu.

mkdocs runs this file while it builds the site (plugin gen-files); nothing of it is written to `docs`.
"""

from __future__ import annotations

import ast
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import click
import mkdocs_gen_files

from lse_core.cli import main
from lse_core.errors import LSEError
from lse_measure.play import find_runtime, write_playground

ROOT = Path(__file__).parents[2]
NAMES = ("core", "dec", "data", "measure", "train", "export", "seg", "soft")
PACKAGES = {f"lse_{name}": f"lse-{name}" for name in NAMES}
BORROWED = {
    **{f"packages/{name}/README.md": f"packages/{name}.md" for name in PACKAGES.values()},
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "tools/recipes/README.md": "recipes.md",
}
"""Files of the repository that are pages of the site too, with their place in it."""

LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def exported(path: Path) -> list[str]:
    """`__all__` of a source file, in its order, without running it."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
            return list(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    return []


def modules(package: str) -> Iterator[tuple[str, list[str]]]:
    """The package and the modules directly in it that export names."""
    folder = ROOT / "packages" / PACKAGES[package] / "src" / package
    yield package, exported(folder / "__init__.py")
    for path in sorted(folder.iterdir()):
        file = path / "__init__.py" if path.is_dir() else path
        if file.is_file() and file.suffix == ".py" and path.stem != "__init__" and (found := exported(file)):
            yield f"{package}.{path.stem}", found


def write(page: str, text: str, source: str) -> None:
    """Write a page of the site, its links to files of the repository changed to links within the site."""
    with mkdocs_gen_files.open(page, "w") as file:
        file.write(LINK.sub(lambda found: relinked(found, source, page), text))


def relinked(found: re.Match[str], source: str, page: str) -> str:
    """A link of the file `source` as `page` needs it; the bare words where the site has no such page."""
    words, target, anchor = found[1], found[2], found[3] or ""
    if ":" in target:
        return found[0]
    path = os.path.normpath(os.path.join(os.path.dirname(source), target))
    if not (ROOT / path).exists():
        if source.startswith("docs/") and path.startswith("docs/"):
            return found[0]  # a page that is made below; of any other, mkdocs says that it is missing
        raise FileNotFoundError(f"{source} links to {target}, and there is no such file")
    inside = path.removeprefix("docs/") if path.startswith("docs/") else page_of(path)
    if inside is None or not (inside in BORROWED.values() or (ROOT / "docs" / inside).is_file()):
        return words
    return f"[{words}]({os.path.relpath(inside, os.path.dirname(page) or '.')}{anchor})"


def page_of(path: str) -> str | None:
    """The page that shows a file or a folder of the repository."""
    if path == "docs/results":
        return "results/README.md"
    return BORROWED.get(path) or BORROWED.get(f"{path}/README.md")


def api_pages() -> Iterator[tuple[str, list[str]]]:
    """Write the API reference and give its menu: a package's page and those of its modules."""
    for package in PACKAGES:
        (_, own), *parts = modules(package)
        elsewhere = {name for _, names in parts for name in names}
        # the page of a package links to what a module's page describes, and describes the rest
        links = "".join(f"- [`{package}.{name}`][{package}.{name}]\n" for name in sorted(elsewhere & {*own}))
        reference(package, sorted({*own} - elsewhere), links)
        for module, names in parts:
            reference(module, names)
        yield package, [f"    * [{m.removeprefix(package + '.')}](api/{m}.md)\n" for m, _ in parts]


def reference(module: str, names: Sequence[str], links: str = "") -> None:
    """Write the page of a module: its docstring, the links, and the names described."""
    with mkdocs_gen_files.open(f"api/{module}.md", "w") as file:
        heading = f"# {module}\n\n::: {module}\n    options: {{show_root_heading: false, members: false}}\n"
        members = "".join(f"\n::: {module}.{name}\n" for name in names)
        file.write(f"{heading}\n{links}{members}")


def command_page() -> str:
    """The help of every command, as the terminal shows it."""
    parts = ["# Commands\n\nThe help of every command, as `--help` prints it.\n"]

    def walk(command: click.Command, path: str, above: click.Context | None, level: int) -> None:
        context = click.Context(command, info_name=path.rsplit(" ", 1)[-1], parent=above, terminal_width=100)
        parts.append(f"\n{'#' * level} {path}\n\n```text\n{command.get_help(context)}\n```\n")
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                if child is not None and not child.hidden:
                    walk(child, f"{path} {name}", context, min(level + 1, 4))

    walk(main, "lse", None, 2)
    return "".join(parts)


def playground() -> None:
    """The page that `lse play` writes, at play/index.html, of the demo's models and some of its pictures.

    Where ONNX Runtime Web is not installed it is left out, and the page says so.
    """
    pair = ROOT / "tools" / "site" / "play"
    try:
        runtime = find_runtime(ROOT / "tests" / "browser")
    except LSEError:
        runtime = None
    with tempfile.TemporaryDirectory() as made:
        out = Path(made) / "play"
        write_playground([pair / "plain.onnx", pair / "adapted.onnx"], [pair], out, runtime=runtime)
        for file in (path for path in out.rglob("*") if path.is_file()):
            with mkdocs_gen_files.open(f"play/{file.relative_to(out).as_posix()}", "wb") as copy:
                copy.write(file.read_bytes())


def title(page: Path) -> str:
    """The first heading of a page."""
    return next(line[2:] for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("# "))


def menu(name: str) -> str:
    """A folder of `docs` as a part of the menu, its README first; by the order of their names."""
    pages = sorted((ROOT / "docs" / name).glob("*.md"), key=lambda p: (p.name != "README.md", p.name))
    return f"* {name.capitalize()}\n" + "".join(
        f"    * [{title(page)}]({name}/{page.name})\n" for page in pages
    )


for page in sorted((ROOT / "docs").rglob("*.md")):
    inside = page.relative_to(ROOT / "docs").as_posix()
    write(inside, page.read_text(encoding="utf-8"), f"docs/{inside}")
for source, page_name in BORROWED.items():
    write(page_name, (ROOT / source).read_text(encoding="utf-8"), source)
playground()
mkdocs_gen_files.config["copyright"] = f"LSE {version('lse-core')}"  # at the foot of every page
with mkdocs_gen_files.open("commands.md", "w") as commands:
    commands.write(command_page())
api = "".join(f"    * [{package}](api/{package}.md)\n" + "".join("    " + e for e in entries)
              for package, entries in api_pages())  # fmt: skip
packages = "".join(f"    * [{name}](packages/{name}.md)\n" for name in PACKAGES.values())
with mkdocs_gen_files.open("SUMMARY.md", "w") as summary:
    summary.write(
        "* [Start](index.md)\n"
        f"{menu('tutorials')}{menu('concepts')}"
        "    * [Glossary](glossary.md)\n"
        f"* Packages\n{packages}* Reference\n    * [Commands](commands.md)\n{api}"
        f"{menu('results')}"
        "* More\n    * [GPU](gpu.md)\n    * [TensorRT](tensorrt.md)\n    * [Reliability](reliability.md)\n"
        "    * [Recipes](recipes.md)\n    * [Contributing](contributing.md)\n"
        "    * [Changelog](changelog.md)\n"
    )
