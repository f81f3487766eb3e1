"""Plugins, tried with distributions that are really on `sys.path`."""

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

import lse_core
from lse_core.errors import PluginError, UnknownNameError
from lse_core.plugins import KINDS, PluginWarning, Registry, hookimpl, registry

Install = Callable[..., None]

SOLVER = """
    from lse_core.plugins import hookimpl

    @hookimpl
    def lse_solvers():
        return {"halley": "the solver"}
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution with one plugin module on the path; forget its modules afterwards."""
    before = set(sys.modules)

    def put(
        name: str,
        source: str | None,
        *,
        entry: str | None = None,
        version: str = "1.2",
        points: str | None = None,
        place: str | None = None,
        metadata: bool = True,
    ) -> None:
        module = f"{name.replace('-', '_')}_plugin"
        root = tmp_path / (place or name)
        info = root / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        if metadata:
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(points or f"[lse]\n{entry or name} = {module}\n")
        if source is not None:
            (root / f"{module}.py").write_text(dedent(source))
        monkeypatch.syspath_prepend(str(root))

    yield put
    for name in set(sys.modules) - before:
        if name.endswith("_plugin"):
            del sys.modules[name]


def only(*names: str) -> Registry:
    """A registry of lse-core and these plugins, whatever else is installed."""
    return Registry({"LSE_PLUGINS": ",".join(names)})


def test_builtins_come_through_the_same_hooks() -> None:
    found = Registry({"LSE_PLUGINS": "core"})
    assert found.get("warp", "separable") is lse_core.SeparableWarp
    assert found.provider("warp", "separable") == "lse-core"
    assert {"doctor", "plugins"} <= set(found.names("command"))


def test_registry_is_one_for_the_process() -> None:
    assert lse_core.registry() is registry()


def test_installed_plugin_is_found_and_attributed(install: Install) -> None:
    install("lse-halley", SOLVER)
    found = only("lse-halley")
    assert found.get("solver", "halley") == "the solver"
    assert found.provider("solver", "halley") == "lse-halley"
    assert found.items("solver") == (("halley", "the solver"),)
    (info,) = (info for info in found.plugins() if info.name == "lse-halley")
    assert (info.distribution, info.version, info.status, info.error) == ("lse-halley", "1.2", "ok", "")
    assert info.provides == {"solver": ("halley",)}


def test_nothing_is_imported_or_called_before_it_is_needed(install: Install) -> None:
    install(
        "lse-counting",
        """
        from lse_core.plugins import hookimpl
        calls = []

        @hookimpl
        def lse_solvers():
            calls.append("solvers")
            return {"s": 1}

        @hookimpl
        def lse_datasets():
            calls.append("datasets")
            return {"d": 1}
        """,
    )
    found = only("lse-counting")
    assert "lse_counting_plugin" not in sys.modules
    found.names("command")
    calls = sys.modules["lse_counting_plugin"].calls
    assert calls == []
    for _ in range(2):
        found.get("solver", "s")
    assert calls == ["solvers"]
    found.plugins()
    assert calls == ["solvers", "datasets"]


def test_threads_call_a_hook_once(install: Install) -> None:
    install(
        "lse-slow",
        """
        import time
        from lse_core.plugins import hookimpl
        calls = []

        @hookimpl
        def lse_solvers():
            calls.append(1)
            time.sleep(0.05)
            return {"s": 7}
        """,
    )
    found, results = only("lse-slow"), []
    threads = [threading.Thread(target=lambda: results.append(found.get("solver", "s"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [7] * 8
    assert sys.modules["lse_slow_plugin"].calls == [1]


BROKEN = {
    "absent module": (None, "ModuleNotFoundError: No module named 'lse_bad_plugin'"),
    "import raises": ("raise ValueError('first line\\nsecond line')", "ValueError: first line second line"),
    "import exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "syntax": ("def f(:", "SyntaxError: "),
    "misspelt hook": (
        "from lse_core import hookimpl\n@hookimpl\ndef lse_sovlers(): return {}",
        "unknown hook 'lse_sovlers'. Did you mean 'lse_solvers'?",
    ),
    "unknown argument": (
        "from lse_core import hookimpl\n@hookimpl\ndef lse_solvers(config): return {}",
        "are declared in the hookimpl but can not be found in the hookspec",
    ),
    "hook raises": (
        "from lse_core import hookimpl\n@hookimpl\ndef lse_solvers(): return 1 / 0",
        "lse_solvers: ZeroDivisionError: division by zero",
    ),
    "no mapping": (
        "from lse_core import hookimpl\n@hookimpl\ndef lse_solvers(): return ['s']",
        "lse_solvers: TypeError: returned list, not a mapping",
    ),
    "no string": (
        "from lse_core import hookimpl\n@hookimpl\ndef lse_solvers(): return {3: 's'}",
        "lse_solvers: TypeError: returned the name 3",
    ),
    "no command": (
        "from lse_core import hookimpl\n@hookimpl\ndef lse_commands(): return {'c': print}",
        "lse_commands: TypeError: 'c' is builtin_function_or_method, not a click.Command",
    ),
}


@pytest.mark.parametrize(("source", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_reported_and_breaks_nothing_else(
    install: Install, source: str | None, reason: str
) -> None:
    install("lse-halley", SOLVER)
    install("lse-bad", source)
    found = only("lse-bad", "lse-halley")
    with pytest.warns(PluginWarning, match="plugin 'lse-bad' of lse-bad 1.2 is broken") as caught:
        infos = {info.name: info for info in found.plugins()}
    assert len(caught) == 1
    assert infos["lse-bad"].status == "failed"
    assert reason in infos["lse-bad"].error
    assert "\n" not in infos["lse-bad"].error
    assert infos["lse-halley"].status == infos["core"].status == "ok"
    assert found.get("solver", "halley") == "the solver"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once, not at every question
        found.plugins()


@pytest.mark.parametrize(("source", "reason"), BROKEN.values(), ids=BROKEN)
def test_strict_mode_raises_every_time(install: Install, source: str | None, reason: str) -> None:
    install("lse-bad", source)
    found = Registry({"LSE_PLUGINS": "lse-bad", "LSE_PLUGINS_STRICT": "1"})
    for _ in range(2):
        with pytest.raises(PluginError, match="plugin 'lse-bad' of lse-bad") as caught:
            found.plugins()
        assert reason in str(caught.value)


def test_other_hooks_of_a_plugin_with_a_broken_one_work(install: Install) -> None:
    install(
        "lse-half",
        """
        from lse_core.plugins import hookimpl

        @hookimpl
        def lse_solvers():
            raise RuntimeError("no")

        @hookimpl
        def lse_updates():
            return {"momentum": 1}

        @hookimpl
        def lse_datasets():
            raise RuntimeError("neither")
        """,
    )
    found = only("lse-half")
    with pytest.warns(PluginWarning) as caught:
        info = next(info for info in found.plugins() if info.name == "lse-half")
    assert len(caught) == 1
    assert info.status == "failed"
    assert info.error == "lse_solvers: RuntimeError: no; lse_datasets: RuntimeError: neither"
    assert info.provides == {"update": ("momentum",)}
    assert found.get("update", "momentum") == 1


def test_an_interrupt_is_not_taken_for_a_broken_plugin(install: Install) -> None:
    install(
        "lse-interrupted",
        """
        from lse_core.plugins import hookimpl
        calls = []

        @hookimpl
        def lse_solvers():
            calls.append(1)
            if len(calls) == 1:
                raise KeyboardInterrupt
            return {"s": 1}
        """,
    )
    found = only("lse-interrupted")
    with pytest.raises(KeyboardInterrupt):
        found.get("solver", "s")
    assert found.get("solver", "s") == 1


def test_malformed_entry_points_of_one_distribution_leave_the_others(install: Install) -> None:
    install("lse-halley", SOLVER)
    install("lse-bad", None, points="[lse]\nthis is no entry point\n")
    found = only("lse-bad", "lse-halley")
    with pytest.warns(PluginWarning, match="entry_points.txt cannot be read"):
        assert found.get("solver", "halley") == "the solver"


def test_a_distribution_without_metadata_still_loads(install: Install) -> None:
    install("lse-halley", SOLVER, metadata=False)
    assert only("lse-halley").get("solver", "halley") == "the solver"


def test_of_two_copies_of_a_distribution_the_first_on_the_path_counts(install: Install) -> None:
    install("lse-halley", SOLVER, version="1.0", place="old")
    install("lse-halley", SOLVER.replace("the solver", "newer"), version="2.0", place="new")
    found = only("lse-halley")
    assert found.get("solver", "halley") == "newer"
    assert [i.version for i in found.plugins() if i.distribution == "lse-halley"] == ["2.0"]


def test_two_distributions_may_use_one_entry_point_name(install: Install) -> None:
    install("lse-a", SOLVER.replace("halley", "a"), entry="extra")
    install("lse-b", SOLVER.replace("halley", "b"), entry="extra")
    found = only("extra", "lse-b")
    assert found.names("solver") == ("a", "b")
    assert [info.name for info in found.plugins() if info.status == "ok"] == ["core", "extra", "lse-b:extra"]


def test_a_hook_may_ask_the_registry_that_calls_it() -> None:
    class Asking:
        @hookimpl
        def lse_warps(self) -> dict[str, object]:
            return {"alias": found.get("warp", "separable")}

    found = only("core")
    found.register(Asking(), "asking")
    assert found.get("warp", "alias") is lse_core.SeparableWarp


def test_one_name_from_two_plugins_is_an_error_that_names_both(install: Install) -> None:
    install("lse-one", SOLVER)
    install("lse-two", SOLVER + '\n    @hookimpl\n    def lse_updates():\n        return {"momentum": 1}\n')
    found = only("lse-one", "lse-two")
    for ask in (found.get, found.provider):
        with pytest.raises(PluginError, match=r"solver 'halley' is provided by lse-one .* and lse-two "):
            ask("solver", "halley")
    assert found.names("solver") == ()
    assert found.get("update", "momentum") == 1
    assert {i.name: i.status for i in found.plugins()}["lse-two"] == "ok"
    (line,) = found.conflicts()
    assert "LSE_PLUGINS=-lse-two" in line
    assert Registry({"LSE_PLUGINS": "lse-one,lse-two,-lse-two"}).provider("solver", "halley") == "lse-one"


@pytest.mark.parametrize(
    ("value", "loads"),
    [
        ("", True),
        (" , ", True),
        ("lse-halley", True),
        ("LSE_Halley", True),
        ("core, h", True),
        ("core", False),
        ("-lse-halley", False),
        ("-h", False),
        ("h,-lse.halley", False),
        ("-core", True),
    ],
)
@pytest.mark.filterwarnings("ignore::lse_core.plugins.PluginWarning")
def test_variable_allows_and_blocks_by_name(install: Install, value: str, loads: bool) -> None:
    install("lse-halley", SOLVER, entry="h")
    found = Registry({"LSE_PLUGINS": value})
    assert ("halley" in found.names("solver")) is loads
    assert ("lse_halley_plugin" in sys.modules) is loads
    assert {i.name: i.status for i in found.plugins()}["h"] == ("ok" if loads else "blocked")
    assert ("separable" in found.names("warp")) is (value != "-core")


def test_variable_with_a_name_that_is_not_installed_warns() -> None:
    with pytest.warns(PluginWarning, match="LSE_PLUGINS names 'exprot', .*installed: core"):
        Registry({"LSE_PLUGINS": "core,-exprot"}).names("warp")


def test_unknown_name_gives_the_closest_and_all(install: Install) -> None:
    install("lse-halley", SOLVER)
    with pytest.raises(UnknownNameError, match=r"unknown solver 'haley'\. Did you mean 'halley'\?"):
        only("lse-halley").get("solver", "haley")


def test_a_plugin_with_a_hook_of_an_earlier_version_loads_and_is_told(install: Install) -> None:
    install(
        "lse-halley",
        SOLVER + '\n    @hookimpl\n    def lse_exporters():\n        raise AssertionError("not called")\n',
    )
    found = only("lse-halley")
    with pytest.warns(
        PluginWarning, match="'lse_exporters', which is not used any more: .*lse_commands"
    ) as told:
        assert found.get("solver", "halley") == "the solver"
    assert len(told) == 1
    assert {i.name: i.status for i in found.plugins()}["lse-halley"] == "ok"
    with pytest.raises(UnknownNameError, match=r"unknown plugin kind 'exporter'\..*lse_commands"):
        found.names("exporter")


def test_unknown_name_mentions_plugins_that_are_absent(install: Install) -> None:
    install("lse-halley", SOLVER)
    install("lse-bad", "raise ValueError('wrong driver')")
    found = only("lse-bad")
    with pytest.warns(PluginWarning), pytest.raises(UnknownNameError) as caught:
        found.get("solver", "halley")
    assert "Plugin 'lse-bad' of lse-bad failed: ValueError: wrong driver." in str(caught.value)
    assert "Plugin 'lse-halley' of lse-halley is blocked by LSE_PLUGINS." in str(caught.value)


def test_unknown_kind_gives_the_closest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown plugin kind 'solvers'. Did you mean 'solver'\?"):
        only("core").names("solvers")


class InProcess:
    """A plugin that is an object, as tests and notebooks register it."""

    @hookimpl
    def lse_backbones(self) -> dict[str, int]:
        return {"tower": 5}


def test_register_and_unregister() -> None:
    assert "tower" not in registry().names("backbone")  # asked before: it must not be remembered
    registry().register(InProcess(), "in-process")
    try:
        assert registry().get("backbone", "tower") == 5
        assert registry().provider("backbone", "tower") == "in-process"
        with pytest.raises(PluginError, match="'in-process' is registered already"):
            registry().register(InProcess(), "in-process")
    finally:
        registry().unregister("in-process")
    with pytest.raises(UnknownNameError):
        registry().get("backbone", "tower")
    with pytest.raises(UnknownNameError, match="unknown plugin 'in-proces'"):
        registry().unregister("in-proces")


def test_register_rejects_a_misspelt_hook_and_keeps_nothing() -> None:
    class Misspelt(InProcess):
        @hookimpl
        def lse_sovlers(self) -> dict[str, int]:
            return {}

    found = only("core")
    with pytest.raises(PluginError, match=r"'bad' is broken: .*unknown hook 'lse_sovlers'"):
        found.register(Misspelt(), "bad")
    assert "tower" not in found.names("backbone")
    found.register(InProcess(), "bad")


def test_every_kind_has_a_documented_hook() -> None:
    from lse_core.plugins import hookspecs

    hooks = {name for name in vars(hookspecs) if name.startswith("lse_")}
    assert hooks == {f"lse_{kind}s" for kind in KINDS}
    for name in hooks:
        assert len(getattr(hookspecs, name).__doc__.splitlines()) == 1
