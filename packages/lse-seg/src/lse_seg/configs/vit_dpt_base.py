"""Small ViT with the DPT head, without augmentation."""
# ruff: noqa: F403, F405

from mmengine.config import read_base
from mmseg.models import CrossEntropyLoss, DPTHead, EncoderDecoder, VisionTransformer

with read_base():
    from ._base_.objects import *
    from ._base_.schedule import *

model = dict(
    type=EncoderDecoder,
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type=VisionTransformer,
        img_size=size,
        patch_size=8,
        embed_dims=96,
        num_layers=4,
        num_heads=3,
        mlp_ratio=3,
        out_indices=(0, 1, 2, 3),
        output_cls_token=True,
        final_norm=True,
    ),
    decode_head=dict(
        type=DPTHead,
        in_channels=[96] * 4,
        in_index=[0, 1, 2, 3],
        embed_dims=96,
        patch_size=8,
        post_process_channels=[24, 48, 96, 96],
        channels=48,
        input_transform="multiple_select",
        num_classes=19,
        dropout_ratio=0.0,
        norm_cfg=dict(type="BN"),
        align_corners=False,
        # the background counts a tenth, as in section A1
        loss_decode=dict(type=CrossEntropyLoss, class_weight=[0.1] + [1.0] * 18, avg_non_ignore=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
