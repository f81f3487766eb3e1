"""Tiny models of the classes that find, cut out and fill in objects, with random weights, as files.

Grounding DINO, SAM and SAM 2 are folders as `save_pretrained` writes them; LaMa is an ONNX or TorchScript
file with the inputs and outputs of the published ones. Every line that reads real weights runs with these.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = [
    "PROMPT_WORDS",
    "write_grounding_dino",
    "write_lama",
    "write_lama_script",
    "write_sam",
    "write_sam2",
]

PROMPT_WORDS = ("a", "cat", "dog", "red", "disc", "big", "##s")
SIDE = 64  # pixels of the longer side at which the models look at a picture
SPREAD = 0.3  # standard deviation of weights; at the classes' own 0.02 all answers are alike


def _randomise(model: Any, seed: int) -> Any:
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sorted(model.named_parameters()):
            if tensor.ndim > 1:
                tensor.copy_(SPREAD * torch.randn(tensor.shape, generator=generator))
            elif not name.endswith("norm.weight") and "norm" not in name:
                tensor.copy_(0.05 * torch.randn(tensor.shape, generator=generator))
    return model.eval()


def write_grounding_dino(folder: Path, seed: int = 0) -> Path:
    """`GroundingDinoForObjectDetection` with a Swin, a BERT of the words above, and its processor."""
    from transformers import (
        BertConfig,
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", *PROMPT_WORDS]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)})
    backbone = SwinConfig(
        image_size=2 * SIDE, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2,
        out_indices=[2, 3, 4],
    )  # fmt: skip
    text = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64,
    )  # fmt: skip
    config = GroundingDinoConfig(
        backbone_config=backbone, text_config=text, num_queries=12, d_model=32, encoder_layers=1,
        decoder_layers=2, encoder_ffn_dim=16, decoder_ffn_dim=16, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_n_points=2, decoder_n_points=2, max_text_len=32,
        disable_custom_kernels=True,
    )  # fmt: skip
    _randomise(GroundingDinoForObjectDetection(config), seed).save_pretrained(folder)
    size = {"shortest_edge": SIDE * 3 // 2, "longest_edge": 2 * SIDE}
    GroundingDinoProcessor(GroundingDinoImageProcessor(size=size), tokenizer).save_pretrained(folder)
    return folder


def write_sam(folder: Path, seed: int = 0) -> Path:
    """`SamModel` and its processor."""
    from transformers import (
        SamConfig,
        SamImageProcessor,
        SamMaskDecoderConfig,
        SamModel,
        SamProcessor,
        SamPromptEncoderConfig,
        SamVisionConfig,
    )

    config = SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=16, output_channels=16, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE,
            patch_size=8, window_size=4, global_attn_indexes=[1], num_pos_feats=8, mlp_dim=16,
        ),
        prompt_encoder_config=SamPromptEncoderConfig(hidden_size=16, image_size=SIDE, patch_size=8),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=16, mlp_dim=16, num_attention_heads=2, iou_head_hidden_dim=16
        ),
    )  # fmt: skip
    _randomise(SamModel(config), seed).save_pretrained(folder)
    size, low = {"longest_edge": SIDE}, {"longest_edge": SIDE // 2}
    square = {"height": SIDE, "width": SIDE}
    prepare = SamImageProcessor(size=size, pad_size=square, mask_size=low, mask_pad_size=square)
    SamProcessor(prepare).save_pretrained(folder)
    return folder


def write_sam2(folder: Path, seed: int = 0) -> Path:
    """`Sam2Model` and its processor."""
    from transformers import (
        Sam2Config,
        Sam2HieraDetConfig,
        Sam2ImageProcessor,
        Sam2MaskDecoderConfig,
        Sam2Model,
        Sam2Processor,
        Sam2PromptEncoderConfig,
        Sam2VisionConfig,
    )

    hiera = Sam2HieraDetConfig(
        hidden_size=8, image_size=[SIDE, SIDE], blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 24, 32], num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[4, 2, 2, 2], global_attention_blocks=[3],
        window_positional_embedding_background_size=[2, 2],
    )  # fmt: skip
    config = Sam2Config(
        vision_config=Sam2VisionConfig(
            backbone_config=hiera, backbone_channel_list=[32, 24, 16, 8], fpn_hidden_size=16,
            backbone_feature_sizes=[[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2],
        ),
        prompt_encoder_config=Sam2PromptEncoderConfig(hidden_size=16, image_size=SIDE, patch_size=16),
        mask_decoder_config=Sam2MaskDecoderConfig(
            hidden_size=16, mlp_dim=16, num_attention_heads=2, iou_head_hidden_dim=16
        ),
    )  # fmt: skip
    _randomise(Sam2Model(config), seed).save_pretrained(folder)
    square = {"height": SIDE, "width": SIDE}
    Sam2Processor(Sam2ImageProcessor(size=square, mask_size=square)).save_pretrained(folder)
    return folder


def write_lama(file: Path, size: tuple[int, int] | None = (SIDE, SIDE), white: float = 255.0) -> Path:
    """An ONNX file that blurs what is around a hole into it, and keeps the rest, as LaMa's own files do.

    Args:
        file: to write.
        size: (height, width) that it takes; None for any.
        white: the value of white in what it gives.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    sides: tuple[int | str, ...] = size or ("height", "width")
    told = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, *sides])
        for name, channels in (("image", 3), ("mask", 1), ("output", 3))
    ]
    kernel = np.random.default_rng(0).uniform(0, 2 / 81, (3, 1, 9, 9)).astype(np.float32)
    constants = {"kernel": kernel, "one": np.float32(1), "white": np.float32(white)}
    nodes = [
        helper.make_node("Sub", ["one", "mask"], ["known"]),
        helper.make_node("Mul", ["image", "known"], ["seen"]),
        helper.make_node("Conv", ["seen", "kernel"], ["blurred"], group=3, pads=[4] * 4),
        helper.make_node("Mul", ["blurred", "mask"], ["made"]),
        helper.make_node("Add", ["seen", "made"], ["filled"]),
        helper.make_node("Mul", ["filled", "white"], ["output"]),
    ]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "lama", told[:2], told[2:], tensors)
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)
    return file


def write_lama_script(file: Path) -> Path:
    """A TorchScript file of the same kind, for any size; it gives a picture in [0, 1]."""
    import warnings

    import torch

    class Blur(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blur = torch.nn.Conv2d(3, 3, 9, padding=4, groups=3, bias=False)

        def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return image * (1 - mask) + torch.sigmoid(self.blur(image * (1 - mask))) * mask

    torch.manual_seed(0)
    file.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the format is old, and so is LaMa
        traced = torch.jit.trace(Blur().eval(), (torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)))
    traced.save(str(file))
    return file
