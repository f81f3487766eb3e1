"""Small Swin with UPerNet's head, Canon: the image in its best form under a fixed set of warps."""
# ruff: noqa: F403, F405

from mmengine.config import read_base

from lse_seg import CanonicalizedSegmentor

with read_base():
    from .swin_uper_aug import *

model.update(type=CanonicalizedSegmentor, canonicalizer=dict(canonicalizer="canon", warps=16))
