"""Locally scaled photographs (section 5.3 of the paper): `lse data scale-objects`."""

from __future__ import annotations

from lse_data.scaling.config import ScalingConfig
from lse_data.scaling.run import scale_pictures
from lse_data.scaling.stages import Detector, Inpainter, Segmenter, Shot, Stages, build_stages

__all__ = [
    "Detector",
    "Inpainter",
    "ScalingConfig",
    "Segmenter",
    "Shot",
    "Stages",
    "build_stages",
    "scale_pictures",
]
