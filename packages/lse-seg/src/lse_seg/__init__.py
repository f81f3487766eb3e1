"""Local scale equivariance in mmsegmentation.

Importing this package registers its models, transforms, metrics and hooks with mmsegmentation, so
`custom_imports = dict(imports=["lse_seg"])` is all that a config needs. Beside mmcv-lite it also puts a
placeholder for mmcv's compiled ops in place; a full mmcv is used as it is.
"""

# the order matters: nothing of mmsegmentation imports before the placeholder is there
# ruff: noqa: I001
from __future__ import annotations

from lse_seg_plugin.installation import InstallationError, check as _check
from lse_seg.placeholder import MissingOpError, install as _install

if _check().compiled is None:
    _install()

__all__ = ["InstallationError", "MissingOpError"]
__version__ = "0.1.0"
