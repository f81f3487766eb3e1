"""Local scale equivariance in mmsegmentation.

This release registers the package and its command only. The names below are promised to later releases;
asking for one raises `NotInThisReleaseError`.
"""

from __future__ import annotations

from typing import NoReturn

from lse_core.errors import LSEError

__all__ = ["NotInThisReleaseError"]
__version__ = "0.1.0"

PROMISED = (
    "CanonicalizedBackbone",
    "CanonicalizedSegmentor",
    "EquivarianceError",
    "RandomMonotoneScaling",
    "ScaleObjects",
)


class NotInThisReleaseError(LSEError, ImportError):
    """Something of lse-seg that a later release will bring.

    An `ImportError`, because an `AttributeError` would lose its text in `from lse_seg import ...`.
    """


def __getattr__(name: str) -> NoReturn:
    if name in PROMISED:
        raise NotInThisReleaseError(
            f"lse_seg.{name} is not in lse-seg {__version__}: mmsegmentation integration comes with a later "
            "release; until then adapt the backbone itself with lse_dec.adapt"
        )
    raise AttributeError(f"module 'lse_seg' has no attribute {name!r}")
