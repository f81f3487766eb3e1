"""Old names say what replaced them, and nothing else changes how Python imports."""

import sys
from importlib import import_module
from types import ModuleType

import pytest

from lse_core.lazy import lazy_names
from lse_core.moved import announce


@pytest.fixture
def package(monkeypatch):
    """An importable package `old_house` that had the submodule `attic` and the function `knock`."""
    module = ModuleType("old_house")
    module.__path__ = []
    monkeypatch.setitem(sys.modules, "old_house", module)
    monkeypatch.setattr("lse_core.moved._MOVED", {})
    moved = {"attic": "no_such_package.attic", "hall": "lse_core.atomic", "knock": "ring the bell instead"}
    module.__getattr__, module.__dir__ = lazy_names("old_house", {}, moved)
    return module


def test_importing_a_moved_module_names_the_new_one_and_what_to_install(package):
    expected = "old_house.attic is now no_such_package.attic; install it first: pip install no-such-package"
    for name in ("old_house.attic", "old_house.attic.box"):
        with pytest.raises(ImportError) as caught:
            import_module(name)
        assert str(caught.value) == expected


def test_nothing_needs_installing_where_the_new_package_is_there(package):
    with pytest.raises(ImportError) as caught:
        import_module("old_house.hall")
    assert str(caught.value) == "old_house.hall is now lse_core.atomic"


def test_from_imports_of_modules_and_of_names_say_it_too(package):
    with pytest.raises(ImportError, match=r"^old_house\.hall is now lse_core\.atomic$"):
        from old_house import hall  # noqa: F401
    with pytest.raises(ImportError, match=r"^old_house\.knock is gone: ring the bell instead$"):
        from old_house import knock  # noqa: F401


def test_attributes_say_it_too_and_are_not_there(package):
    with pytest.raises(AttributeError, match="ring the bell instead"):
        _ = package.knock
    assert not hasattr(package, "attic")


def test_other_missing_modules_and_names_are_missing_as_ever(package):
    with pytest.raises(ModuleNotFoundError, match=r"No module named .old_house\.cellar."):
        import_module("old_house.cellar")
    with pytest.raises(AttributeError, match="has no attribute 'cellar'"):
        _ = package.cellar


def test_the_finder_is_added_once(package):
    announce({"old_house.door": "lse_core.atomic"})
    assert [getattr(finder, "__module__", "") for finder in sys.meta_path].count("lse_core.moved") == 1


def test_a_folder_left_behind_by_a_module_that_went_is_not_imported(package, tmp_path):
    (tmp_path / "hall" / "__pycache__").mkdir(parents=True)
    package.__path__ = [str(tmp_path)]
    with pytest.raises(ImportError, match="is now lse_core"):
        import_module("old_house.hall")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("lse_core.commands.group", "lse_data.commands.group"),
        ("lse_dec.training", "lse_train"),
        ("lse_dec.data", "lse_data"),
        ("lse_train.data", "lse_data"),
        ("lse_train.commands.data", "lse_data.commands.data"),
        ("lse_dec.recipes", "lse_train.recipes"),
        ("lse_dec.demo", "lse_train.demo"),
    ],
)
def test_what_moved_since_version_0_1_is_announced(old, new):
    pytest.importorskip("lse_dec")
    with pytest.raises(ImportError, match=rf"^{old} is now {new}(;|$)"):
        import_module(old)
