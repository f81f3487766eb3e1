"""Classifiers of the recipes and the demo: timm models that read three digits, some of them small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lse_core.errors import LSEError, unknown_name

__all__ = ["SMALL", "Numbers", "demo_model", "number_model"]

SMALL: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "small_resnet": ("resnet10t", {"channels": (16, 32, 64, 128), "stem_type": "", "stem_width": 16}),
    "small_resnetv2": ("resnetv2_18", {"channels": (16, 32, 64, 128), "layers": (1, 1, 1, 1)}),
    "small_densenet": ("densenet121", {"growth_rate": 12, "block_config": (2, 2, 2, 2)}),
    # behind a convolutional stem: on plain patches it has learnt nothing after 1,000 steps of 32 images
    "small_vit": (
        "vit_tiny_r_s16_p8_224",
        {
            "patch_size": 2,
            "embed_dim": 64,
            "depth": 3,
            "num_heads": 4,
            "class_token": False,
            "global_pool": "avg",
        },
    ),
    "small_pvt": ("pvt_v2_b0", {"depths": (1, 1, 1, 1), "embed_dims": (16, 32, 40, 64)}),
    "small_swin": (
        "swin_tiny_patch4_window7_224",
        {"depths": (1, 1, 2), "embed_dim": 24, "num_heads": (2, 4, 8), "window_size": 4},
    ),
}
"""Small members of families by name: timm's own classes with these keywords, for 48 to 96 px."""

_SIZED = ("small_vit", "small_swin")


class Numbers(nn.Module):
    """Log-probabilities of the numbers 000 to 999 from independent guesses at three digits.

    A plain layer of 1,000 classes has to learn every number on its own, which takes more images than a
    small training set has; this one learns each digit in each place.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, 30) scores of ten digits in three places to log-probabilities (B, 1000)."""
        log_p = x.view(-1, 3, 10).log_softmax(-1)
        joint = log_p[:, 0, :, None, None] + log_p[:, 1, None, :, None] + log_p[:, 2, None, None, :]
        return joint.flatten(1)


def number_model(name: str, *, resolution: int = 64, pool: bool | None = None, **options: Any) -> nn.Module:
    """A classifier of grey images (B, 1, R, R) into log-probabilities (B, 1000).

    Args:
        name: one of `SMALL`, or any timm model.
        resolution: R in pixels.
        pool: whether the last map is reduced as the model does it, or else flattened, which keeps where
            each digit stood; None flattens small models and leaves the others as they are.
        options: further keywords of `timm.create_model`.

    Raises:
        UnknownNameError: neither small nor known to timm.
        LSEError: a model without a linear classifier, or of a resolution that it cannot take.
    """
    import timm

    small = name in SMALL
    if not small and not timm.is_model(name):
        close = timm.list_models(f"{name[:4]}*") + list(SMALL)
        raise unknown_name("model", name, close, "Any timm model will do.")
    architecture, given = SMALL.get(name, (name, {}))
    settings: dict[str, Any] = {"in_chans": 1, "num_classes": 30, **given, **options}
    flat = small if pool is None else not pool
    sized = name in _SIZED or _takes_size(architecture)
    if sized:
        settings.setdefault("img_size", resolution)
    try:
        model: Any = timm.create_model(architecture, **settings)
        path = str(model.pretrained_cfg["classifier"])
        if flat:
            _flatten(model, path, resolution)
        else:
            parent, child = _parent(model, path)
            setattr(parent, child, nn.Sequential(getattr(parent, child), Numbers()))
    except (AssertionError, RuntimeError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LSEError(f"{name} cannot be made for {resolution} px: {reason}") from error
    return model


# recipes and runs of earlier versions name it so
number_model.earlier_places = ("lse_dec.recipes.models:number_model",)  # type: ignore[attr-defined]


def demo_model(resolution: int, channels: Sequence[int] = (16, 32, 64, 128)) -> nn.Module:
    """The classifier of the demo, a narrow resnet10t, which loads the weights of earlier versions' demos too.

    The demo's recipe now asks `number_model` for the same network. Checkpoints of earlier versions name this
    function, and call the layer that scores digits "fc.digits", which here is "fc.1".

    Args:
        resolution: side of the images in pixels, (B, 1, resolution, resolution).
        channels: widths of the four stages.

    Raises:
        LSEError: a resolution that the network cannot take.
    """
    model: Any = number_model(
        "resnet10t", resolution=resolution, pool=False, channels=tuple(channels), stem_width=channels[0]
    )

    def rename(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        for kind in ("weight", "bias"):
            if f"{prefix}digits.{kind}" in state:
                state[f"{prefix}1.{kind}"] = state.pop(f"{prefix}digits.{kind}")

    model.fc.register_load_state_dict_pre_hook(rename)
    return model  # type: ignore[no-any-return]


# demos of earlier versions name it so
demo_model.earlier_places = ("lse_dec.demo.model:number_classifier",)  # type: ignore[attr-defined]


def _flatten(model: Any, path: str, resolution: int) -> None:
    """Put a linear layer on the whole last map in the place of pooling and classifier."""
    with torch.no_grad():
        was = model.training
        features = model.eval().forward_features(torch.zeros(1, 1, resolution, resolution)).numel()
        model.train(was)
    model.img_size = (resolution, resolution)  # for who runs it on blank images: no other size fits the layer
    head = nn.Sequential(nn.Flatten(), nn.Linear(features, 30), Numbers())
    if path in ("fc", "classifier"):  # ResNet and DenseNet pool apart from their classifier
        model.global_pool = nn.Identity()
        setattr(model, path, head)
    else:  # the whole head, with the pooling inside it
        model.head = head
        if isinstance(getattr(model, "global_pool", None), str):  # pooling by name, for which no name is none
            model.global_pool = "" if hasattr(model, "attn_pool") else None


def _takes_size(architecture: str) -> bool:
    import inspect

    from timm.models import model_entrypoint

    module = model_entrypoint(architecture).__module__.rsplit(".", 1)[-1]
    return module in ("vision_transformer", "swin_transformer", "beit", "deit", "eva") or "img_size" in (
        inspect.signature(model_entrypoint(architecture)).parameters
    )


def _parent(root: nn.Module, path: str) -> tuple[nn.Module, str]:
    parent, _, child = path.rpartition(".")
    return root.get_submodule(parent), child
