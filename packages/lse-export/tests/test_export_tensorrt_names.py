"""Every name of TensorRT that the code uses exists in the first and the last known release of both majors.

TensorRT cannot be installed where the tests run, but its Python bindings can be looked at: the files in
`tensorrt_names/` list their names, see tools/tensorrt_names.py.
"""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

import lse_export.tensorrt

NAMES = Path(__file__).parent / "tensorrt_names"
SOURCES = sorted(
    path
    for path in Path(lse_export.tensorrt.__file__).parent.glob("*.py")
    if "import tensorrt as trt" in path.read_text("utf-8")
)


class Names:
    """What one release has."""

    def __init__(self, version: str) -> None:
        data = tomllib.loads((NAMES / f"{version}.toml").read_text("utf-8"))
        assert data["version"] == version
        assert data["source"]
        self.top = set(data["functions"].split()) | {"__version__"}
        self.classes = {name: set(members.split()) for name, members in data["classes"].items()}

    def lacks(self, dotted: str) -> bool:
        """Whether the release has no such name, "BuilderFlag.REFIT" for instance."""
        owner, _, member = dotted.rpartition(".")
        if not owner:
            return member not in self.top and member not in self.classes
        return member not in self.classes.get(owner, set())


RELEASES = {path.stem: Names(path.stem) for path in NAMES.glob("*.toml")}


class Uses(ast.NodeVisitor):
    """Dotted names that a file uses of TensorRT: `trt.X.Y`, and `variable.Y` where the variable is annotated.

    `problems` holds what cannot be followed: an attribute of something that TensorRT returned and that was
    not annotated.
    """

    def __init__(self, source: str) -> None:
        self.tree = ast.parse(source)
        self.kinds: dict[str, str] = {}
        self.found: set[str] = set()
        self.problems: list[str] = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.AnnAssign):
                self._note(ast.unparse(node.target), node.annotation)
            elif isinstance(node, ast.arg) and node.annotation is not None:
                self._note(node.arg, node.annotation)
        self.unknown = {
            ast.unparse(target)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Assign) and self._returned(node.value)
            for target in node.targets
        }
        self.visit(self.tree)

    def _note(self, variable: str, annotation: ast.expr) -> None:
        text = ast.unparse(annotation).removesuffix(" | None")
        if text.startswith("trt."):
            kind = text.removeprefix("trt.")
            assert self.kinds.setdefault(variable, kind) == kind, f"{variable!r} has two types in one file"

    def _returned(self, node: ast.expr) -> bool:
        """Is this a call of TensorRT's?"""
        return isinstance(node, ast.Call) and (
            ast.unparse(node.func).startswith("trt.") or self._owner(node.func) is not None
        )

    def _owner(self, node: ast.expr) -> str | None:
        return self.kinds.get(ast.unparse(node.value)) if isinstance(node, ast.Attribute) else None

    def visit_Attribute(self, node: ast.Attribute) -> None:
        text = ast.unparse(node)
        if text.startswith("trt."):
            self.found.add(text.removeprefix("trt."))
        elif (kind := self._owner(node)) is not None:
            self.found.add(f"{kind}.{node.attr}")
        elif self._returned(node.value) or ast.unparse(node.value) in self.unknown:
            self.problems.append(text)
        if not node.attr.startswith("__"):
            self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            if (kind := ast.unparse(base)).startswith("trt."):
                own = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
                self.found.update(f"{kind[4:]}.{name}" for name in own if f"{kind[4:]}.{name}" in OVERRIDDEN)
        self.generic_visit(node)


OVERRIDDEN = {
    "ILogger.log",
    "IProgressMonitor.phase_start",
    "IProgressMonitor.step_complete",
    "IProgressMonitor.phase_finish",
}


def test_four_releases_are_known() -> None:
    assert {int(version.split(".")[0]) for version in RELEASES} == {10, 11}
    assert len(RELEASES) == 4
    for names in RELEASES.values():
        assert len(names.classes) > 150
        # all that a monitor has to define
        methods = {name.split(".")[1] for name in OVERRIDDEN if name.startswith("IProgressMonitor")}
        assert names.classes["IProgressMonitor"] == methods


@pytest.mark.parametrize("version", RELEASES)
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_name_exists(path: Path, version: str) -> None:
    uses = Uses(path.read_text("utf-8"))
    assert not uses.problems, f"annotate these, so that they can be looked up: {uses.problems}"
    assert len(uses.found) > 15
    missing = sorted(name for name in uses.found if RELEASES[version].lacks(name) and not _dunder(name))
    assert not missing, f"TensorRT {version} has no {missing}"


def _dunder(name: str) -> bool:
    return name.rpartition(".")[2].startswith("__")


def test_everything_that_calls_tensorrt_is_looked_at() -> None:
    assert [path.name for path in SOURCES] == ["builder.py", "runner.py"]
    used = set().union(*(Uses(path.read_text("utf-8")).found for path in SOURCES))
    for name in (
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "Builder.build_serialized_network",
        "IExecutionContext.execute_async_v3",
        "IProgressMonitor.step_complete",
        "ParserError.node_name",
    ):
        assert name in used


@pytest.mark.parametrize(
    ("code", "missing"),
    [
        ("flag = trt.BuilderFlag.FP16", "BuilderFlag.FP16"),
        ("flag = trt.BuilderFlag.INT8", "BuilderFlag.INT8"),
        (
            "flag = trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
            "NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
        ),
        ("class Mine(trt.IInt8EntropyCalibrator2): ...", "IInt8EntropyCalibrator2"),
        ("engine: trt.ICudaEngine = make()\nn = engine.device_memory_size", "ICudaEngine.device_memory_size"),
        ("def f(config: trt.IBuilderConfig | None):\n    config.int8_calibrator = 1",
         "IBuilderConfig.int8_calibrator"),
    ],
)  # fmt: skip
def test_what_tensorrt_11_dropped_is_noticed(code: str, missing: str) -> None:
    (found,) = (name for name in Uses(code).found if name == missing)
    assert not RELEASES["10.0.1"].lacks(found)
    assert all(RELEASES[version].lacks(found) for version in RELEASES if version.startswith("11."))


@pytest.mark.parametrize(
    "code",
    [
        "engine: trt.ICudaEngine = make()\nx = engine.create_execution_context()\nx.enqueue()",
        "engine: trt.ICudaEngine = make()\nengine.create_execution_context().enqueue()",
        "x = trt.Runtime(log)\nx.load()",
    ],
)
def test_what_cannot_be_followed_is_noticed(code: str) -> None:
    assert Uses(code).problems
