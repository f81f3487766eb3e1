"""Every name of TensorRT that the code uses exists in every known release, and is called if it is a method.

TensorRT 10 and 11 cannot be installed where the tests run, but their Python bindings can be looked at: the
files in `tensorrt_names/` list their names, methods with "()", see tools/tensorrt_names.py. TensorRT for RTX
can be installed; where it is, the list is compared with the module itself.
"""

from __future__ import annotations

import ast
import re
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import lse_export.tensorrt

NAMES = Path(__file__).parent / "tensorrt_names"
FOLDER = Path(lse_export.tensorrt.__file__).parent
# which files call TensorRT at all, and which of them TensorRT for RTX alone
SOURCES = sorted(path for path in FOLDER.glob("*.py") if "import tensorrt" in path.read_text("utf-8"))
RTX = {"rtx.py"}
MODULE = re.compile(r"^(?:\w+\.)*trt\.")  # `trt`, `found.trt`, ...
KIND = re.compile(r"^tensorrt(?:_rtx)?\.")  # in annotations


class Names:
    """What one release has."""

    def __init__(self, version: str, path: Path) -> None:
        data = tomllib.loads(path.read_text("utf-8"))
        assert data["version"] == version
        assert data["source"]
        self.top = set(data["functions"].split()) | {"__version__"}
        self.spelled = {name: set(members.split()) for name, members in data["classes"].items()}
        self.classes = {
            name: {m.removesuffix("()") for m in members} for name, members in self.spelled.items()
        }

    def lacks(self, dotted: str) -> bool:
        """Whether the release has no such name, "BuilderFlag.REFIT" for instance."""
        owner, _, member = dotted.rpartition(".")
        if not owner:
            return member not in self.top and member not in self.classes
        return member not in self.classes.get(owner, set())

    def is_method(self, dotted: str) -> bool:
        owner, _, member = dotted.rpartition(".")
        return f"{member}()" in self.spelled.get(owner, set())


RELEASES = {path.stem: Names(path.stem.removeprefix("rtx-"), path) for path in NAMES.glob("*.toml")}


class Uses(ast.NodeVisitor):
    """Dotted names that a file uses of TensorRT: `trt.X.Y`, and `variable.Y` where the variable is annotated.

    `called` are those of objects that are called, `read` those that are read or set. `problems` holds what
    cannot be followed: an attribute of something that TensorRT returned and that was not annotated.
    """

    def __init__(self, source: str) -> None:
        self.tree = ast.parse(source)
        self.kinds: dict[str, str] = {}
        self.found: set[str] = set()
        self.called: set[str] = set()
        self.read: set[str] = set()
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
        self.functions = {id(node.func) for node in ast.walk(self.tree) if isinstance(node, ast.Call)}
        self.visit(self.tree)

    def _note(self, variable: str, annotation: ast.expr) -> None:
        text = ast.unparse(annotation).removesuffix(" | None")
        if KIND.match(text):
            kind = KIND.sub("", text)
            assert self.kinds.setdefault(variable, kind) == kind, f"{variable!r} has two types in one file"

    def _returned(self, node: ast.expr) -> bool:
        """Is this a call of TensorRT's?"""
        return isinstance(node, ast.Call) and (
            MODULE.match(ast.unparse(node.func)) is not None or self._owner(node.func) is not None
        )

    def _owner(self, node: ast.expr) -> str | None:
        return self.kinds.get(ast.unparse(node.value)) if isinstance(node, ast.Attribute) else None

    def visit_Attribute(self, node: ast.Attribute) -> None:
        text = ast.unparse(node)
        if MODULE.match(text):
            self.found.add(MODULE.sub("", text).removesuffix(".__members__"))
        elif KIND.match(text):
            self.found.add(KIND.sub("", text))
        elif (kind := self._owner(node)) is not None:
            name = f"{kind}.{node.attr}"
            self.found.add(name)
            (self.called if id(node) in self.functions else self.read).add(name)
        elif self._returned(node.value) or ast.unparse(node.value) in self.unknown:
            self.problems.append(text)
        if not node.attr.startswith("__"):
            self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            if MODULE.match(text := ast.unparse(base)):
                own = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
                kind = MODULE.sub("", text)
                self.found.update(f"{kind}.{name}" for name in own if f"{kind}.{name}" in OVERRIDDEN)
        self.generic_visit(node)


OVERRIDDEN = {
    "ILogger.log",
    "IProgressMonitor.phase_start",
    "IProgressMonitor.step_complete",
    "IProgressMonitor.phase_finish",
}


def test_five_releases_are_known() -> None:
    assert sorted(version.split(".")[0] for version in RELEASES) == ["10", "10", "11", "11", "rtx-1"]
    for names in RELEASES.values():
        assert len(names.classes) > 150
        # all that a monitor has to define
        methods = {name.split(".")[1] for name in OVERRIDDEN if name.startswith("IProgressMonitor")}
        assert names.classes["IProgressMonitor"] == methods


PAIRS = [(p, v) for p in SOURCES for v in RELEASES if p.name not in RTX or v.startswith("rtx")]


@pytest.mark.parametrize(("path", "version"), PAIRS, ids=[f"{p.name}-{v}" for p, v in PAIRS])
def test_every_name_exists_and_is_used_as_what_it_is(path: Path, version: str) -> None:
    uses, names = Uses(path.read_text("utf-8")), RELEASES[version]
    assert not uses.problems, f"annotate these, so that they can be looked up: {uses.problems}"
    assert len(uses.found) > 3
    missing = sorted(name for name in uses.found if names.lacks(name) and not _dunder(name))
    assert not missing, f"TensorRT {version} has no {missing}"
    unread = sorted(name for name in uses.read if names.is_method(name))
    assert not unread, f"these are methods in TensorRT {version}, and read as if they were not: {unread}"
    uncalled = sorted(name for name in uses.called if not names.is_method(name) and not names.lacks(name))
    assert not uncalled, f"these are no methods in TensorRT {version}, and called: {uncalled}"


@pytest.mark.parametrize("version", RELEASES)
def test_a_method_that_is_read_is_noticed(version: str) -> None:
    wrong = Uses("error: tensorrt.ParserError = parser.get_error(0)\ntext = error.desc")
    right = Uses("error: tensorrt.ParserError = parser.get_error(0)\ntext = error.desc()")
    assert [n for n in wrong.read if RELEASES[version].is_method(n)] == ["ParserError.desc"]
    assert right.called == {"ParserError.desc"}
    assert not right.read


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed")
def test_the_list_is_that_of_the_module_installed() -> None:
    trt = import_module("tensorrt_rtx")
    (version,) = (v for v in RELEASES if v.startswith("rtx-"))
    if version != f"rtx-{trt.__version__}":
        pytest.skip(f"TensorRT for RTX {trt.__version__} is here, the list is of {version}")
    for name, members in RELEASES[version].spelled.items():
        found = trt
        for part in name.split("."):
            found = getattr(found, part)
        assert {m.removesuffix("()") for m in members} == {m for m in dir(found) if not m.startswith("_")}
        for member in members:
            value = getattr(found, member.removesuffix("()"))
            assert member.endswith("()") == (callable(value) and not isinstance(value, type))


def _dunder(name: str) -> bool:
    return name.rpartition(".")[2].startswith("__")


def test_everything_that_calls_tensorrt_is_looked_at() -> None:
    names = ["build.py", "library.py", "network.py", "rtx.py", "runner.py"]
    assert [path.name for path in SOURCES] == names
    others = [path for path in FOLDER.parent.rglob("*.py") if path not in SOURCES]
    assert not [
        path for path in others if re.search(r"\b(trt|tensorrt|tensorrt_rtx)\.[A-Z]", path.read_text())
    ]
    used = set().union(*(Uses(path.read_text("utf-8")).found for path in SOURCES))
    for name in (
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "Builder.build_serialized_network",
        "IExecutionContext.execute_async_v3",
        "IProgressMonitor.step_complete",
        "ParserError.node_name",
        "Runtime.get_engine_validity",
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
        ("engine: tensorrt.ICudaEngine = make()\nn = engine.device_memory_size",
         "ICudaEngine.device_memory_size"),
        ("def f(config: tensorrt.IBuilderConfig | None):\n    config.int8_calibrator = 1",
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
        "engine: tensorrt.ICudaEngine = make()\nx = engine.create_execution_context()\nx.enqueue()",
        "engine: tensorrt.ICudaEngine = make()\nengine.create_execution_context().enqueue()",
        "x = trt.Runtime(log)\nx.load()",
    ],
)
def test_what_cannot_be_followed_is_noticed(code: str) -> None:
    assert Uses(code).problems
