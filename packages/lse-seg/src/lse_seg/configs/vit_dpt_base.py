"""Small ViT with the DPT head, without augmentation."""
# ruff: noqa: F403

from mmengine.config import read_base

with read_base():
    from ._base_.objects import *
    from ._base_.schedule import *
    from ._base_.vit_dpt import *
