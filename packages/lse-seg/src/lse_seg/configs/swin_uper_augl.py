"""Small Swin with UPerNet's head, AugL: EquE (Eq. 23) is part of the loss."""
# ruff: noqa: F403, F405

from mmengine.config import read_base

from lse_seg import ConsistentSegmentor

with read_base():
    from .swin_uper_aug import *

model.update(type=ConsistentSegmentor, equivariance_loss=dict(weight=10.0))
