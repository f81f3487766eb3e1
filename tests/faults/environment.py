"""Disks that are full, folders that are read-only, plugins that are broken, variables that are wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.fault import Fault, both, fault, write

WRITERS = {
    "adapt": ("adapt plain --site image --out", "model"),
    "train": ("train run.yaml --out", "folder"),
    "data digits": ("data digits --count 2 --resolution 32 --out", "folder"),
    "data scenes": ("data scenes --count 10 --out", "folder"),
    "data make-objects": ("data make-objects --train 1 --test 1 --val 1 --size 64 --out", "folder"),
    "data preview": ("data preview --rows 1 --cols 1 --resolution 32 --out", "p.png"),
    "warp": ("warp photos/cup/0.png --frames 2 --size 32 --out", "folder"),
    "look": ("look model photos/cup/0.png --out", "look.png"),
    "export onnx": ("export onnx model --out", "new.onnx"),
    "export triton": ("export triton model.onnx", "repo"),
    "predict": ("predict model.onnx photos/cup --out", "out.csv"),
    "soften": ("soften resnet10t --group rotation --keep 0.9 --out", "soft"),
    "demo": ("demo --quick --out", "folder"),
}
ROOT = os.geteuid() == 0


def locked(place: Path) -> None:
    if ROOT:
        pytest.skip("root may write everywhere")
    (place / "locked").mkdir()
    (place / "locked").chmod(0o555)


def stranger(body: str, name: str = "stranger") -> Callable[[Path], None]:
    """A distribution with a plugin, in a folder that is put on Python's path."""
    info = f"site/{name}-1.0.dist-info"
    return both(
        write(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"),
        write(f"{info}/entry_points.txt", f"[lse]\n{name} = {name}_plugin\n"),
        write(f"site/{name}_plugin.py", body),
    )


HOOK = "from lse_core.plugins import hookimpl\n@hookimpl\ndef lse_"
SITE = {"PYTHONPATH": "site", "PYTHONDONTWRITEBYTECODE": "1"}
STRICT = {**SITE, "LSE_PLUGINS_STRICT": "1"}
PLUGINS = {
    "that cannot be imported": ("import nowhere_at_all", ("nowhere_at_all",)),
    "that is no Python": ("def def", ("SyntaxError",)),
    "that leaves the program": ("import sys; sys.exit(3)", ("SystemExit",)),
    "that raises what nothing catches": ("raise BaseException('boo')", ("boo",)),
    "whose hook raises": (HOOK + "solvers(): raise RuntimeError('broken hook')", ("broken hook",)),
    "whose hook returns a list": (HOOK + "solvers(): return ['a']", ("list",)),
    "whose names are numbers": (HOOK + "solvers(): return {3: object}", ("3",)),
    "whose command is no command": (HOOK + "commands(): return {'x': 3}", ("click.Command",)),
    "whose hook does not exist": (HOOK + "solver(): return {}", ("lse_solver",)),
}
FULL = 2_000  # bytes: room for settings, not for weights

FAULTS: list[Fault] = [
    *(
        fault(f"a place below a file, for {name}", f"{args} run.yaml/{leaf}", "run.yaml")
        for name, (args, leaf) in WRITERS.items()
    ),
    *(
        fault(
            f"a folder that nobody may write to, for {name}",
            f"{args} locked/{leaf}",
            "locked",
            prepare=locked,
        )
        for name, (args, leaf) in WRITERS.items()
    ),
    *(
        fault(
            f"a plugin {what}, shown",
            "plugins",
            "stranger",
            "failed",
            prepare=stranger(body),
            status=0,
            env=SITE,
        )
        for what, (body, _) in PLUGINS.items()
    ),
    *(
        fault(
            f"a plugin {what}, in strict mode",
            "plugins",
            "stranger",
            *words,
            prepare=stranger(body),
            env=STRICT,
        )
        for what, (body, words) in PLUGINS.items()
    ),
    fault(
        "a broken plugin beside a command that works",
        "predict model.onnx photos/cup/0.png",
        "stranger",
        prepare=stranger("import nowhere_at_all"),
        status=0,
        env=SITE,
    ),
    fault(
        "a solver of a broken plugin",
        "adapt plain --solver strange --out new",
        "'strange'",
        "stranger",
        prepare=stranger("import nowhere_at_all"),
        env=SITE,
    ),
    fault(
        "a name that two plugins claim",
        "adapt plain --solver anderson --out new",
        "anderson",
        "lse-dec",
        "stranger",
        "LSE_PLUGINS=-stranger",
        prepare=stranger(HOOK + "solvers(): return {'anderson': object}"),
        env=SITE,
        would="answer in the place of what is known by that name",
    ),
    fault(
        "a plugin that is blocked",
        "adapt plain --out new",
        "'dec'",
        "blocked",
        env={"LSE_PLUGINS": "-dec"},
        status=2,
    ),
    fault("a plugin to allow that does not exist", "plugins", "dce", status=0, env={"LSE_PLUGINS": "-dce"}),
    fault("a terminal of 20 columns", "plugins", "dec", status=0, env={"COLUMNS": "20"}),
    *(
        fault(f"a disk that is full, for {name}", f"{args} {leaf}", leaf, largest=FULL, changes=empty)
        for name, (args, leaf) in WRITERS.items()
        # a folder that is empty may be left; scenes and previews have no file that is too large
        for empty in [(leaf,) if name in ("warp", "export triton", "soften") else ()]
        if name not in ("predict", "demo", "train", "data scenes", "data preview")
    ),
    fault(
        "a disk that is full, for the CSV file",
        "predict model.onnx photos/cup --out out.csv",
        "out.csv",
        largest=20,
    ),
    fault(
        "a disk that is full, for a run",
        "train run.yaml --out folder",
        "folder",
        largest=FULL,
        changes=("folder", "folder/*"),
    ),
    fault(
        "a disk that is full, for a model that is replaced",
        "adapt plain --site layer1 --force --out model",
        "model",
        largest=FULL,
    ),
    fault(
        "a disk that is full, for a file that is replaced",
        "export onnx model --force --out model.onnx",
        "model.onnx",
        largest=FULL,
    ),
    fault(
        "a disk that is full, for digits that are replaced",
        "data digits --count 8 --resolution 32 --force --out digits",
        "digits",
        largest=FULL,
    ),
]
