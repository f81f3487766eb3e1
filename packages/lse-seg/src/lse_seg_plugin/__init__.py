"""The plugin of lse-seg, in a package of its own, because importing lse_seg imports mmsegmentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lse_core.plugins import hookimpl


def mmcv_line() -> str:
    """The line of `lse doctor` on mmcv; raises where mmsegmentation cannot run."""
    from lse_seg_plugin.installation import report

    return report()


def load_work_folder(path: Path, *, trust: bool = False) -> Any:
    """The segmentor of a work folder or checkpoint, or None where `path` is neither."""
    if path.suffix != ".pth" and not (path / "last_checkpoint").is_file():
        return None
    from lse_seg.exporting import load_segmentor

    return load_segmentor(path, trust=trust)


@hookimpl
def lse_backbones() -> Mapping[str, Any]:
    """Give mmsegmentation's transformers; its other backbones go the generic route."""
    from lse_seg_plugin.tokens import TokenBackbones

    return {"mmseg-tokens": TokenBackbones()}


@hookimpl
def lse_loaders() -> Mapping[str, Callable[..., Any]]:
    """Load segmentors from the work folders of mmengine's Runner, or from a checkpoint in one."""
    return {"mmengine": load_work_folder}


@hookimpl
def lse_checks() -> Mapping[str, Callable[[], str]]:
    """Say which mmcv is installed, and whether mmsegmentation can run with it."""
    return {"mmcv": mmcv_line}
