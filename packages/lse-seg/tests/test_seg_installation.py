"""mmsegmentation beside mmcv-lite: what is put in place, and what is said where that cannot work."""

import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import lse_seg
from lse_core.cli import main
from lse_seg_plugin import installation
from lse_seg_plugin.installation import InstallationError

lite = pytest.mark.skipif(installation.find_mmcv().compiled is not None, reason="a full mmcv is installed")


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_plugin_load_leaves_mmsegmentation_alone_and_it_imports_after_lse_seg() -> None:
    done = python(
        "import sys\n"
        "from lse_core.plugins import registry\n"
        "assert any(p.name == 'seg' and p.status == 'ok' for p in registry().plugins())\n"
        "from lse_core.commands.doctor import diagnose\n"
        "assert diagnose().checks['mmcv']\n"
        "print(*sorted({'mmseg', 'mmengine', 'mmcv', 'mmcv._ext', 'lse_seg'} & sys.modules.keys()))\n"
        "import lse_seg, mmseg.models\n"
        "from mmcv.utils.ext_loader import check_ops_exist\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "\n"


@lite
def test_without_lse_seg_it_does_not() -> None:
    done = python("import mmseg.models")
    assert "No module named 'mmcv._ext'" in done.stderr


@lite
def test_a_missing_op_is_named_when_called() -> None:
    from mmcv.ops import DeformConv2d

    layer = DeformConv2d(4, 4, 3, padding=1)
    with pytest.raises(lse_seg.MissingOpError, match="no compiled op 'deform_conv_forward'"):
        layer(torch.zeros(1, 4, 8, 8), torch.zeros(1, 18, 8, 8))


@lite
def test_mmcv_and_mmengine_still_see_that_there_are_no_ops() -> None:
    from mmengine.utils.dl_utils import mmcv_full_available

    assert not mmcv_full_available()
    spec = find_spec("mmcv._ext")
    assert spec is not None
    assert spec.loader is None


def test_version_is_that_of_the_distribution() -> None:
    assert lse_seg.__version__ == metadata.version("lse-seg")


class Installed:
    """An environment made of distributions by name, and files of mmcv."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.versions = {
            "mmsegmentation": "1.2.2",
            "mmengine": "0.10.7",
            "mmcv-lite": "2.1.0",
        }
        self.folder = tmp_path / "mmcv"
        self.folder.mkdir()
        (self.folder / "__init__.py").touch()
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "mmcv", raising=False)
        monkeypatch.setattr(installation, "_version", self.versions.get)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Installed:
    return Installed(monkeypatch, tmp_path)


def test_lite_is_told_from_full_by_its_compiled_file(installed: Installed) -> None:
    assert installation.report() == "lite 2.1.0: models that call compiled ops do not run"
    (installed.folder / "_ext.so").touch()
    installed.versions["mmcv"] = "2.1.0"
    assert installation.report() == "full 2.1.0, compiled ops in _ext.so"


@pytest.mark.parametrize(
    ("name", "version", "text"),
    [
        ("mmsegmentation", None, "mmsegmentation is not installed: pip install 'mmsegmentation>=1.2.2,<1.3'"),
        ("mmengine", "0.9.0", "mmengine 0.9.0 does not work here: pip install 'mmengine>=0.10.7,<0.11'"),
        ("mmcv-lite", "2.2.0", "mmsegmentation refuses mmcv 2.2.0: pip install 'mmcv-lite>=2.1,<2.2'"),
    ],
)
def test_what_is_missing_or_wrong_is_one_line(
    installed: Installed, name: str, version: str | None, text: str
) -> None:
    installed.versions.pop(name)
    if version:
        installed.versions[name] = version
    with pytest.raises(InstallationError, match=text.replace("(", r"\(")) as caught:
        installation.check()
    assert "\n" not in str(caught.value)
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert f"problem: {text}" in result.stdout


def test_setuptools_without_pkg_resources_is_named(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        installation, "find_spec", lambda name: None if name == "pkg_resources" else find_spec(name)
    )
    with pytest.raises(InstallationError, match="pip install 'setuptools<81'"):
        installation.check()
