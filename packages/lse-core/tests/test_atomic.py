"""Files appear whole or not at all, and what went wrong is told in one line."""

import os
from pathlib import Path

import pytest

from lse_core.atomic import check_target, replacing, staging
from lse_core.errors import OutputError


def full_disk() -> OSError:
    return OSError(28, os.strerror(28))


def test_files_move_into_place_together(tmp_path: Path) -> None:
    target = tmp_path / "new" / "m.onnx"
    with replacing(target, overwrite=False) as path:
        path.write_text("graph")
        (path.parent / "m.onnx.data").write_text("weights")
        assert not target.exists()
    assert target.read_text() == "graph"
    assert sorted(f.name for f in target.parent.iterdir()) == ["m.onnx", "m.onnx.data"]


def test_the_file_that_refers_to_others_moves_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []
    replace = os.replace

    def noted(source: Path, target: Path) -> None:
        moved.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", noted)
    with replacing(tmp_path / "a", overwrite=False) as path:
        for name in ("a", "a.z", "a.b"):
            (path.parent / name).write_text("")
    assert moved[-1] == "a"
    assert sorted(moved) == ["a", "a.b", "a.z"]


@pytest.mark.parametrize("stop", [RuntimeError("half way"), KeyboardInterrupt()])
def test_an_error_leaves_nothing_new_and_the_old_as_it_was(tmp_path: Path, stop: BaseException) -> None:
    target = tmp_path / "m.onnx"
    target.write_text("old")

    def stop_half_way() -> None:
        with replacing(target, overwrite=True) as path:
            path.write_text("new")
            raise stop

    with pytest.raises(type(stop)):
        stop_half_way()
    assert [f.name for f in tmp_path.iterdir()] == ["m.onnx"]
    assert target.read_text() == "old"


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    def fill() -> None:
        with replacing(tmp_path / "m.onnx", overwrite=False) as path:
            path.write_text("new")
            raise full_disk()

    with pytest.raises(OutputError, match=r"^cannot write .*m\.onnx: No space left on device$"):
        fill()
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match="cannot write"),
        replacing(tmp_path / "file" / "m.onnx", overwrite=False),
    ):
        pass


def test_targets_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("")
    with pytest.raises(OutputError, match="exists already; choose another name or allow overwriting"):
        check_target(tmp_path / "old", overwrite=False)
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="is a folder; name a file in it"):
            check_target(tmp_path, overwrite)
    with pytest.raises(OutputError, match=r"cannot write .*new: .*old is not a directory"):
        check_target(tmp_path / "old" / "deep" / "new", overwrite=False)
    check_target(tmp_path / "old", overwrite=True)
    check_target(tmp_path / "new", overwrite=False)


def test_a_folder_is_staged_beside_its_target_and_gone_afterwards(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "set"
    with staging(target) as partial:
        assert partial.parent == target.parent
        assert partial.name.startswith(".set.")
        (partial / "pictures").mkdir()
        (partial / "pictures" / "0.png").write_text("")
        os.replace(partial / "pictures", target)
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == [
        "deep", "deep/set", "deep/set/0.png",
    ]  # fmt: skip


def test_an_error_that_says_what_to_do_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"^take another disk$"), staging(tmp_path / "set"):
        raise OutputError("take another disk")
    assert not list(tmp_path.iterdir())
