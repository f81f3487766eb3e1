"""Nothing in the packages runs what a file holds: beside the lint rules (ruff's S), the calls they miss."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("packages/*/src/**/*.py"), *ROOT.glob("tools/**/*.py")])
FORBIDDEN = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "shelve.open", "dill.load"),
    *("joblib.load", "eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"),
    *("yaml.full_load", "torch.hub.load"),
}
MUST_SAY = {"torch.load": ("weights_only", True)}
MUST_NOT_SAY = {
    "np.load": "allow_pickle",
    "numpy.load": "allow_pickle",
    "subprocess.run": "shell",
    "subprocess.Popen": "shell",
}


def faults_of(source: str) -> Iterator[str]:
    """Calls in a source text that could run what a file holds."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        said = {k.arg: k.value for k in node.keywords}
        if name in FORBIDDEN:
            yield f"line {node.lineno}: {name}"
        if name in MUST_SAY:
            key, value = MUST_SAY[name]
            given = said.get(key)
            if not (isinstance(given, ast.Constant) and given.value is value):
                yield f"line {node.lineno}: {name} without {key}={value}"
        if name in MUST_NOT_SAY and MUST_NOT_SAY[name] in said:
            yield f"line {node.lineno}: {name} with {MUST_NOT_SAY[name]}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_call_runs_what_a_file_holds(path: Path) -> None:
    assert list(faults_of(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.loads(data)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(text, shell=True)",
        "eval(text)",
        "yaml.load(text)",
    ],
)
def test_the_check_bites(source: str) -> None:
    assert list(faults_of(source))
