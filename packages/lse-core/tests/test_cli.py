"""The root command: what it lists, how it fails, what it reports."""

import importlib
import json
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from importlib import metadata
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from lse_core import cli
from lse_core.commands import doctor as doctor_module
from lse_core.errors import ShapeError
from lse_core.plugins import hookimpl, registry


@click.group()
def faulty() -> None:
    """Fail in a chosen way."""


@faulty.command()
def known() -> None:
    """Raise an error meant for people."""
    raise ShapeError("expected 4 dimensions,\ngot 3; add a batch dimension")


@faulty.command()
def bug() -> None:
    """Raise an error nobody meant."""
    raise ZeroDivisionError("division by zero")


@faulty.command()
def stop() -> None:
    """Be interrupted."""
    raise KeyboardInterrupt


@faulty.command()
def careless() -> None:
    """Be interrupted in a finalizer: Python ignores whatever comes up there."""

    class Careless:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    Careless()
    for _ in range(1000):
        time.sleep(0.01)
    click.echo("not interrupted")


@faulty.command()
def missing_file() -> None:
    """Open a file that is not there."""
    Path("no/such/file").read_text()


@faulty.command()
@click.pass_context
def leave(ctx: click.Context) -> None:
    """End with a status of its own."""
    ctx.exit(7)


@faulty.command()
def value() -> int:
    """Return a number, which is no exit status."""
    return 9


class Faulty:
    @hookimpl
    def lse_commands(self) -> dict[str, click.Command]:
        return {"faulty": faulty, "twice": bug}


class Twice:
    @hookimpl
    def lse_commands(self) -> dict[str, click.Command]:
        return {"twice": value}


@pytest.fixture
def plugin() -> Iterator[None]:
    registry().register(Faulty(), "faulty")
    try:
        yield
    finally:
        registry().unregister("faulty")


def lse(*args: str) -> Result:
    registry().names("command")  # warnings of plugins that are broken here belong to no test
    return CliRunner().invoke(cli.main, args, prog_name="lse")


def line_of(result: Result) -> str:
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize("args", [(), ("--help",), ("-h",)])
def test_help_lists_commands_from_plugins(plugin: None, args: tuple[str, ...]) -> None:
    result = lse(*args)
    assert result.exit_code == 0
    for command in ("doctor", "faulty", "plugins"):
        assert f"\n  {command} " in result.stdout


def test_version_is_that_of_the_distribution() -> None:
    assert lse("--version").stdout == f"lse {metadata.version('lse-core')}\n"


def test_meant_error_is_one_line_and_status_1(plugin: None) -> None:
    result = lse("faulty", "known")
    assert line_of(result) == "error: expected 4 dimensions, got 3; add a batch dimension\n"
    assert result.exit_code == 1


def test_missing_file_is_one_line(plugin: None) -> None:
    result = lse("faulty", "missing-file")
    assert "No such file or directory: 'no/such/file'" in line_of(result)
    assert result.exit_code == 1


def test_unexpected_error_is_one_line_that_says_how_to_see_more(plugin: None) -> None:
    result = lse("faulty", "bug")
    assert "ZeroDivisionError: division by zero; `lse --debug ...` shows where" in line_of(result)
    assert result.exit_code == 1


@pytest.mark.parametrize("name", ["known", "bug"])
def test_debug_shows_the_traceback(plugin: None, name: str) -> None:
    result = lse("--debug", "faulty", name)
    assert result.exit_code == 1
    assert f"in {name}\n" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")


def test_interrupt_is_status_130(plugin: None) -> None:
    result = lse("faulty", "stop")
    assert result.exit_code == 130
    assert result.stderr.split() == ["interrupted"]


def test_exit_status_of_a_command_is_kept_and_its_value_is_none(plugin: None) -> None:
    assert lse("faulty", "leave").exit_code == 7
    assert lse("faulty", "value").exit_code == 0


def test_usage_error_is_status_2_and_points_to_the_help(plugin: None) -> None:
    result = lse("plugins", "--jsn")
    assert "--jsn" in line_of(result)
    assert "(see `lse plugins --help`)" in result.stderr
    assert result.exit_code == 2


def test_unknown_command_gives_the_closest() -> None:
    result = lse("plugns")
    assert "unknown command 'plugns'. Did you mean 'plugins'?" in line_of(result)
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("asked", "meant", "home"),
    [("export", "export", "lse-export"), ("adapt", "adapt", "lse-dec"), ("exprot", "export", "lse-export")],
)
def test_command_of_an_absent_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, asked: str, meant: str, home: str
) -> None:
    without = type(registry())({"LSE_PLUGINS": "core"})
    monkeypatch.setattr(cli, "registry", lambda: without)
    monkeypatch.setattr(cli, "find_spec", lambda module: None)
    result = CliRunner().invoke(cli.main, [asked])
    assert repr(meant) in line_of(result)
    assert f"{home}, which is not installed: pip install {home}" in result.stderr
    assert result.exit_code == 2
    assert f"  {meant} " not in CliRunner().invoke(cli.main, ["--help"]).stdout


def test_the_list_of_commands_that_may_be_absent_is_that_of_the_packages() -> None:
    found = registry()
    real = {name: found.provider("command", name) for name in found.names("command") if " " not in name}
    listed = tomllib.loads(Path(cli.__file__).with_name("commands.toml").read_text(encoding="utf-8"))
    claimed = {name: home for home, names in listed.items() for name in names}
    ours = {name: home for name, home in real.items() if home.startswith("lse-") and home != "lse-core"}
    assert ours == {name: home for name, home in claimed.items() if home in ours.values()}


def test_command_of_a_blocked_package_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lse_dec")
    without = type(registry())({"LSE_PLUGINS": "-dec"})
    without.names("command")
    monkeypatch.setattr(cli, "registry", lambda: without)
    result = CliRunner().invoke(cli.main, ["adapt"])
    assert "Plugin 'dec' of lse-dec is blocked by LSE_PLUGINS." in line_of(result)
    assert result.exit_code == 2


def test_command_that_two_plugins_claim_is_an_error_that_names_both(plugin: None) -> None:
    registry().register(Twice(), "other")
    try:
        result = lse("twice")
        assert "command 'twice' is provided by faulty (faulty) and other (other)" in line_of(result)
        assert result.exit_code == 1
        assert lse("--help").exit_code == 0
        assert "conflict: command 'twice'" in lse("plugins").stdout
        (conflict,) = json.loads(lse("plugins", "--json").stdout)["conflicts"]
        assert conflict in json.loads(lse("doctor", "--json").stdout)["problems"]
        assert lse("doctor").exit_code == 1
    finally:
        registry().unregister("other")


def test_plugins_as_json_and_as_table_agree(plugin: None) -> None:
    report = json.loads(lse("plugins", "--json").stdout)
    by_name = {entry["name"]: entry for entry in report["plugins"]}
    assert by_name["core"]["distribution"] == "lse-core"
    assert by_name["core"]["provides"]["warp"] == ["grid", "separable", "triangular"]
    assert by_name["faulty"]["provides"] == {"command": ["faulty", "twice"]}
    table = lse("plugins").stdout
    for entry in by_name.values():
        assert entry["name"] in table
        assert entry["status"] in table


def test_plugins_shows_why_one_failed_brackets_and_all(plugin: None) -> None:
    class Broken:
        @hookimpl
        def lse_datasets(self) -> dict[str, object]:
            raise RuntimeError("[bold]no")

    registry().register(Broken(), "broken")
    try:
        listed = lse("plugins")
        reason = "lse_datasets: RuntimeError: [bold]no"
        assert f"warning: plugin 'broken' of broken (this process) is broken: {reason}\n" in listed.stderr
        assert "[bold]no" in listed.stdout
        diagnosis = lse("doctor", "--json")
        assert diagnosis.exit_code == 1
        problems = json.loads(diagnosis.stdout)["problems"]
        assert f"plugin 'broken' of broken: {reason}" in problems
    finally:
        registry().unregister("broken")


def test_doctor_reports_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    healthy = type(registry())({"LSE_PLUGINS": "core"})
    monkeypatch.setattr(doctor_module, "registry", lambda: healthy)
    result = lse("doctor", "--json")
    report = json.loads(result.stdout)
    assert report["torch"] == torch.__version__
    assert len(report["cuda"]) == torch.cuda.device_count()
    assert report["packages"]["numpy"] == metadata.version("numpy")
    assert not any(name.startswith("lse-") for name in report["packages"])
    assert report["plugins"]["core"] == "ok"
    assert (result.exit_code, report["problems"]) == (0, [])
    assert "no problems found" in lse("doctor").stdout


class Checks:
    """Checks that pass, fail on purpose and break."""

    @hookimpl
    def lse_checks(self) -> dict[str, Callable[[], str]]:
        def fail() -> str:
            raise ShapeError("fuel is low; buy some")

        return {"air": lambda: "fresh", "fuel": fail, "spark": lambda: str(1 / 0)}


def test_doctor_runs_the_checks_of_plugins() -> None:
    registry().register(Checks(), "checks")
    try:
        report = json.loads(lse("doctor", "--json").stdout)
        assert report["checks"]["air"] == "fresh"
        assert "fuel is low; buy some" in report["problems"]
        assert "check 'spark': ZeroDivisionError: division by zero" in report["problems"]
        assert re.search(r"^air +fresh$", lse("doctor").stdout, re.MULTILINE)
    finally:
        registry().unregister("checks")


@pytest.mark.parametrize("name", ["doctor", "plugins"])
def test_help_of_a_command_shows_an_example(name: str) -> None:
    result = lse(name, "--help")
    assert f"Example:\n    lse {name}\n" in result.stdout


def test_an_interrupt_that_python_drops_comes_again(plugin: None) -> None:
    result = lse("faulty", "careless")
    assert result.exit_code == 143
    assert (result.stdout, result.stderr) == ("", "interrupted\n")


def test_the_root_command_needs_neither_torch_nor_numpy() -> None:
    script = (
        "import sys\n"
        "from lse_core.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "timm", "onnx", "rich"} & set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(("name", "kind"), [("SIGTERM", cli._Terminated), ("SIGINT", KeyboardInterrupt)])
def test_a_signal_waits_while_a_compiled_library_is_imported(
    name: str, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames: list[Any] = []

    class Loader:  # what runs within it runs in a frame of importlib, as the code of a compiled library does
        create_module = staticmethod(lambda spec: None)
        exec_module = staticmethod(lambda module: frames.append(sys._getframe(1)))

    class Finder:
        @staticmethod
        def find_spec(name: str, *more: Any) -> ModuleSpec | None:
            return ModuleSpec(name, Loader()) if name == "compiled" else None  # type: ignore[arg-type]

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    importlib.import_module("compiled")
    del sys.modules["compiled"]
    number = getattr(signal, name)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with cli._terminable():
            stop = signal.getsignal(number)
            assert callable(stop)
            stop(number, frames[0])  # nothing is raised in the middle of the import
            with pytest.raises(kind):
                time.sleep(20)  # the signal comes again
            with pytest.raises(kind):
                stop(number, sys._getframe())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
