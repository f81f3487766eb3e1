"""Small ViT with the DPT head, Aug: trained on randomly warped images."""
# ruff: noqa: F403, F405

from mmengine.config import read_base

from lse_seg import RandomMonotoneScaling

with read_base():
    from .vit_dpt_base import *

train_pipeline.insert(2, dict(type=RandomMonotoneScaling, prob=0.5))
train_dataloader["dataset"]["pipeline"] = train_pipeline
