"""What lse-data registers; heavy imports wait until a hook is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lse_core.plugins import hookimpl


@hookimpl
def lse_datasets() -> Mapping[str, Any]:
    """Give the locally scaled digits and scenes, and readers of folders."""
    from lse_data import build_digits, build_image_folder, build_scaled_folder, build_scenes
    from lse_data.folder import Pictures

    return {
        "digits": build_digits,
        "image_folder": build_image_folder,
        "pictures": Pictures,
        "scaled_folder": build_scaled_folder,
        "scenes": build_scenes,
    }


@hookimpl
def lse_commands() -> Mapping[str, Any]:
    """Give the commands that write data sets and draw them."""
    from lse_data.commands.data import data
    from lse_data.commands.make_objects import make_objects
    from lse_data.commands.scale_objects import scale_objects

    return {"data": data, "data make-objects": make_objects, "data scale-objects": scale_objects}


@hookimpl
def lse_detectors() -> Mapping[str, Any]:
    """Give what reads boxes from files, boxes that are given, and Grounding DINO."""
    from lse_data.scaling.pretrained import GroundingDino
    from lse_data.scaling.stages import Boxes, Files

    return {"boxes": Boxes, "files": Files, "grounding-dino": GroundingDino}


@hookimpl
def lse_segmenters() -> Mapping[str, Any]:
    """Give OpenCV's GrabCut, and SAM."""
    from lse_data.scaling.pretrained import Sam
    from lse_data.scaling.stages import GrabCut

    return {"grabcut": GrabCut, "sam": Sam}


@hookimpl
def lse_inpainters() -> Mapping[str, Any]:
    """Give OpenCV's inpainting, and LaMa."""
    from lse_data.scaling.lama import Lama
    from lse_data.scaling.stages import OpenCVInpainter

    return {"lama": Lama, "opencv": OpenCVInpainter}
