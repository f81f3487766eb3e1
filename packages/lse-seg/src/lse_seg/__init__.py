"""Local scale equivariance in mmsegmentation.

Importing this package registers its models, transforms, metrics and hooks with mmsegmentation, so
`custom_imports = dict(imports=["lse_seg"])` is all that a config needs. Beside mmcv-lite it also puts a
placeholder for mmcv's compiled ops in place; a full mmcv is used as it is.
"""

from __future__ import annotations

from lse_core.moved import announce
from lse_seg import environment as _environment  # noqa: F401  first, or nothing below imports
from lse_seg.backbone import CanonicalizedBackbone
from lse_seg.dataset import ScaledObjectsDataset
from lse_seg.hooks import EquivarianceHook, WarpVisualizationHook
from lse_seg.losses import ConsistentSegmentor
from lse_seg.metrics import EquivarianceError, IoUPerScale
from lse_seg.placeholder import MissingOpError
from lse_seg.segmentor import CanonicalizedSegmentor
from lse_seg.transforms import RandomMonotoneScaling, ScaleObjects
from lse_seg_plugin.installation import InstallationError

__all__ = [
    "CanonicalizedBackbone",
    "CanonicalizedSegmentor",
    "ConsistentSegmentor",
    "EquivarianceError",
    "EquivarianceHook",
    "InstallationError",
    "IoUPerScale",
    "MissingOpError",
    "RandomMonotoneScaling",
    "ScaleObjects",
    "ScaledObjectsDataset",
    "WarpVisualizationHook",
]
__version__ = "0.1.0"

announce({"lse_seg.objects": "lse_data.objects", "lse_seg.watching": "lse_dec.observation"})
