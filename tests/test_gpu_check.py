"""`tools/gpu/check.py` rehearsed on the CPU, so that it works where it first meets a GPU."""

import argparse
import importlib
import json
import os
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[1] / "tools" / "gpu"


@pytest.fixture(autouse=True)
def _tools_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))


def tool(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_a_rehearsal_runs_every_part_that_a_cpu_can(tmp_path: Path) -> None:
    assert tool("check").main(["--out", str(tmp_path), "--device", "cpu", "--tiny"]) == 0, (
        tmp_path / "check.log"
    ).read_text()
    found = json.loads((tmp_path / "check.json").read_text())
    parts = {part["name"]: part for part in found["parts"]}
    assert set(tool("parts").NAMES) - set(parts) == {"authors", "compiler-tests", "tensorrt"}
    assert {part["state"] for part in parts.values()} == {"done"}
    tests = parts["tests"]["numbers"]["tests"]
    assert len(tests) >= 4
    assert {test["outcome"] for test in tests.values()} == {"passed"}
    rows = parts["overhead"]["numbers"]["models-test_vit-b1-inference-bf16"]["rows"]
    assert [len(row["seconds"]) for row in rows] == [3, 3]
    assert all(
        row["error"] for row in parts["graphs"]["numbers"]["graphs-test_vit-b1-inference-fp32"]["rows"][2:]
    )
    ways = {row["way"]: row["error"] for row in parts["runtimes"]["numbers"]["runtimes"]}
    assert not ways["ort-cpu"]
    assert set(ways) == {"eager", "ort-cpu", "ort-cuda", "ort-tensorrt", "tensorrt"}
    assert list(parts["cell"]["numbers"]["cells"]) != []
    page = (tmp_path / "check.md").read_text()
    assert page.startswith("# LSE on a GPU\n")
    assert page.count("\n## ") == len(parts) + 1
    assert "| compiled (reduce-overhead) adapted |" in page
    assert str(tmp_path) not in page
    assert "/tmp" not in page


def part(script: Path, **settings: object) -> object:
    return tool("parts").Part("machine", "a part", script, (), **{"limit": 60.0, **settings})


def test_a_part_fails_alone_and_is_stopped_with_all_that_it_started(tmp_path: Path) -> None:
    run, script = tool("processes").run, TOOLS / "machine.py"
    outcome = run(part(script), tmp_path, 60)  # no folder for its numbers
    assert outcome.failed
    assert outcome.state.startswith("failed: IndexError")
    (tmp_path / "machine").rmdir()
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
        "print('as far as this', flush=True)\n"
        "time.sleep(600)\n"
    )
    outcome = run(part(slow), tmp_path, 4)
    assert outcome.state == "stopped after 4 s"
    assert outcome.shown == "as far as this\n"
    child = int((tmp_path / "child").read_text())
    status = Path(f"/proc/{child}/stat")
    assert not status.exists() or status.read_text().split()[2] in "ZX"
    absent = run(part(slow, needs=("no_such_module",)), tmp_path, 4)
    assert absent.state == "left out: no_such_module cannot be imported"
    assert not absent.failed


def wheel(folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    stem = name.replace("-", "_")
    with zipfile.ZipFile(folder / f"{stem}-9.9-py3-none-any.whl", "w") as file:
        file.writestr(f"{stem}_marker.py", "")
        info = f"{stem}-9.9.dist-info"
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


def test_ours_are_installed_and_others_only_where_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "before")
    for name in ("lse-core", "torch", "no-such-thing"):
        wheel(tmp_path / "wheels", name)
    install = tool("site_of_wheels").install
    names = install([tmp_path / "wheels"], tmp_path / "site")
    assert names == ["lse_core-9.9-py3-none-any.whl", "no_such_thing-9.9-py3-none-any.whl"]
    assert (tmp_path / "site" / "no_such_thing_marker.py").is_file()
    assert not (tmp_path / "site" / "torch_marker.py").exists()
    assert sys.path[0] == str(tmp_path / "site")
    assert os.environ["PYTHONPATH"] == f"{tmp_path / 'site'}{os.pathsep}before"
    (tmp_path / "wheels" / "lse_core-9.9-py3-none-any.whl").write_bytes(b"no wheel")
    with pytest.raises(SystemExit, match="pip cannot install the wheels"):
        install([tmp_path / "wheels"], tmp_path / "again")
    wheel(tmp_path / "others", "no-such-thing")
    with pytest.raises(SystemExit, match="no wheel of ours"):
        install([tmp_path / "others"], tmp_path / "again")


def test_the_whole_check_asks_for_what_exists() -> None:
    tools = tool("parts")
    options = argparse.Namespace(device="cuda", tiny=False, authors=Path("theirs"), only=None)
    found = list(tools.parts(options, Path("work")))
    assert tuple(part.name for part in found) == tools.NAMES
    assert all(part.script.is_file() for part in found)
    assert all("theirs" not in part.command or part.name == "authors" for part in found)


def test_options_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parse = tool("check").parse
    for arguments, message in (
        (["--wheels", str(tmp_path / "none")], "is no folder"),
        (["--only", "everything"], "invalid choice"),
        (["--minutes", "0"], "must be above 0"),
    ):
        with pytest.raises(SystemExit):
            parse(["--out", str(tmp_path), *arguments])
        assert message in capsys.readouterr().err
