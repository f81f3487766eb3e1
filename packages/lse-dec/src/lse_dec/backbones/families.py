"""The families of timm and torchvision whose stages are known. Found by name, so that nothing is imported."""

from __future__ import annotations

from typing import Any, ClassVar

from lse_core.layouts import NCHW, NHWC, Layout, Tokens
from lse_dec.backbones.base import IMAGE, Family, Stage, first_convolution
from lse_dec.backbones.tokens import VaryingTokens

__all__ = [
    "PVT",
    "BEiT",
    "ConvNeXt",
    "HRNet",
    "ResNet",
    "Swin",
    "TorchvisionConvNeXt",
    "TorchvisionSwin",
    "TorchvisionViT",
    "ViT",
]


class ViT(Family):
    """VisionTransformer: ViT, DeiT (plain and distilled), DINOv2 and others of that class.

    Every block is a stage, `blocks.0` to the last; class, distillation and register tokens pass untouched.
    """

    classes: ClassVar[tuple[str, ...]] = ("timm.models.vision_transformer.VisionTransformer",)

    def image(self, model: Any) -> Stage:
        """The image, as the patch embedding takes it; what the model gives, if dense, are its tokens."""
        layout, watch = _tokens(model)
        size = None if watch else tuple(model.patch_embed.img_size)
        return Stage(IMAGE, first_convolution(model).in_channels, NCHW(), layout, size, watch)

    def stages(self, model: Any) -> list[Stage]:
        """The blocks."""
        layout, watch = _tokens(model)
        grid = layout.grid if isinstance(layout, Tokens) else None
        names = [f"blocks.{i}" for i in range(len(model.blocks))]
        return [Stage(name, model.embed_dim, layout, layout, grid, watch) for name in names]


class BEiT(ViT):
    """BEiT (v1, v2) and EVA, as ViT; relative or rotary positions reach the block as before."""

    classes = ("timm.models.beit.Beit", "timm.models.eva.Eva")


def _tokens(model: Any) -> tuple[Layout, Any]:
    """How tokens lie, and what keeps that informed where the grid follows the image."""
    prefix = int(getattr(model, "num_prefix_tokens", 1))
    grid = model.patch_embed.grid_size
    if grid is None or getattr(model, "dynamic_img_size", False):
        varying = VaryingTokens(prefix, "patch_embed.proj")
        return varying, varying.watch
    return Tokens((grid[0], grid[1]), prefix), None


class TorchvisionViT(Family):
    """VisionTransformer: `encoder.layers.encoder_layer_0` to the last; the class token passes untouched."""

    classes = ("torchvision.models.vision_transformer.VisionTransformer",)

    def image(self, model: Any) -> Stage:
        """The image, of one size only."""
        size = (model.image_size, model.image_size)
        return Stage(IMAGE, first_convolution(model).in_channels, NCHW(), size=size)

    def stages(self, model: Any) -> list[Stage]:
        """The encoder's layers, on a class token and a square of patches."""
        side = model.image_size // model.patch_size
        layout = Tokens((side, side), 1)
        names = [f"encoder.layers.{name}" for name, _ in model.encoder.layers.named_children()]
        return [Stage(name, model.hidden_dim, layout, layout, layout.grid) for name in names]


class Swin(Family):
    """SwinTransformer (v1, v2): windowed attention on channels-last maps.

    `layers.0` to `layers.3` are the stages; F_k is the map before the stage merges its patches.
    """

    classes = (
        "timm.models.swin_transformer.SwinTransformer",
        "timm.models.swin_transformer_v2.SwinTransformerV2",
    )
    output = NHWC()

    def stages(self, model: Any) -> list[Stage]:
        """The layers."""
        return [Stage(f"layers.{i}", c, NHWC(), NHWC()) for i, c in enumerate(_entering(model))]


class PVT(Family):
    """PyramidVisionTransformerV2: `stages.0` to `stages.3`.

    The first takes the patch embedding's channels-last map. The others begin with a convolution and take
    channels-first maps. All give channels-first maps.
    """

    classes = ("timm.models.pvt_v2.PyramidVisionTransformerV2",)

    def stages(self, model: Any) -> list[Stage]:
        """The stages."""
        return [Stage(f"stages.{i}", c, NHWC() if i == 0 else NCHW()) for i, c in enumerate(_entering(model))]


def _entering(model: Any) -> list[int]:
    """Channels that enter each stage, where timm's feature metadata tell what each stage gives.

    For models whose stages change the channels themselves (a downsampling at their beginning); the
    first one keeps those it is given.
    """
    given = [int(info["num_chs"]) for info in model.feature_info]
    return [given[0], *given[:-1]]


class ResNet(Family):
    """ResNet and its kin of the same class (ResNeXt, SE-ResNet, ECA-ResNet, ...), and torchvision's.

    `layer1` to `layer4` are the stages; F_k is what enters the layer.
    """

    classes = ("timm.models.resnet.ResNet", "torchvision.models.resnet.ResNet")

    def names(self, model: Any) -> list[str]:
        """The four layers."""
        return [f"layer{k}" for k in range(1, 5)]


class ConvNeXt(Family):
    """ConvNeXt (v1, v2): `stages.0` to `stages.3`; F_k is the map before the stage downsamples."""

    classes = ("timm.models.convnext.ConvNeXt",)

    def names(self, model: Any) -> list[str]:
        """The stages."""
        return [f"stages.{i}" for i in range(len(model.stages))]


class HRNet(Family):
    """HighResolutionNet: `layer1`, every branch of the multi-resolution stages, and those of the head.

    The multi-resolution stages take a list of maps, one a branch. A warp before one branch alone puts
    it out of step with the others, unless the mode is "equivariant", which warps its output back.
    """

    classes = ("timm.models.hrnet.HighResolutionNet",)

    def names(self, model: Any) -> list[str]:
        """`layer1`, `stage2.0.branches.0` and so on, `incre_modules.0` and so on."""
        names = ["layer1"]
        for stage in ("stage2", "stage3", "stage4"):
            for i, module in enumerate(getattr(model, stage)):
                names += [f"{stage}.{i}.branches.{b}" for b in range(len(module.branches))]
        return names + [f"incre_modules.{i}" for i in range(len(model.incre_modules or ()))]


class TorchvisionConvNeXt(Family):
    """ConvNeXt: a row of modules, of which all but the stem are stages, `features.1` to `features.7`.

    F_k is the stem's map for `features.1`, what is to be made smaller for `features.2`, and so on.
    """

    classes = ("torchvision.models.convnext.ConvNeXt",)

    def names(self, model: Any) -> list[str]:
        """All but the stem."""
        return [f"features.{i}" for i in range(1, len(model.features))]


class TorchvisionSwin(TorchvisionConvNeXt):
    """SwinTransformer (v1, v2): such a row too, on channels-last maps."""

    classes = ("torchvision.models.swin_transformer.SwinTransformer",)
    layout: ClassVar[Layout] = NHWC()

    def channels(self, stage: Any) -> int:
        """A merging tells its own; a row of blocks begins with attention, which keeps them."""
        return int(stage.dim if hasattr(stage, "dim") else stage[0].attn.proj.out_features)
