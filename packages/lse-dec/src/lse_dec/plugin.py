"""What lse-dec registers; heavy imports wait until a hook is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lse_core.plugins import hookimpl


@hookimpl
def lse_solvers() -> Mapping[str, Any]:
    """Give naive, Anderson and Broyden, and torchdeq's solvers for comparison."""
    from lse_dec import solvers

    return {
        "anderson": solvers.Anderson,
        "anderson-i": solvers.AndersonI,
        "broyden": solvers.Broyden,
        "naive": solvers.Naive,
        "torchdeq.anderson": solvers.TorchDEQAnderson,
        "torchdeq.broyden": solvers.TorchDEQBroyden,
        "torchdeq.fixed_point_iter": solvers.TorchDEQNaive,
    }


@hookimpl
def lse_updates() -> Mapping[str, Any]:
    """Residual, compose and absolute."""
    from lse_dec import updates

    return {"residual": updates.Residual, "compose": updates.Compose, "absolute": updates.Absolute}


@hookimpl
def lse_canonicalizers() -> Mapping[str, Any]:
    """Give the deep equilibrium canonicalizer, the paper's baselines and the analytic one."""
    from lse_dec import canonicalizers

    return {
        "canon": canonicalizers.Canon,
        "dec": canonicalizers.DEC,
        "identity": canonicalizers.Identity,
        "optim": canonicalizers.Optim,
        "variation": canonicalizers.Variation,
    }


@hookimpl
def lse_backbones() -> Mapping[str, Any]:
    """Give the families known by heart, and the generic route for all others."""
    from lse_dec import backbones

    return {
        "beit": backbones.BEiT(),
        "convnext": backbones.ConvNeXt(),
        "generic": backbones.Generic(),
        "hrnet": backbones.HRNet(),
        "pvt": backbones.PVT(),
        "resnet": backbones.ResNet(),
        "swin": backbones.Swin(),
        "torchvision.convnext": backbones.TorchvisionConvNeXt(),
        "torchvision.swin": backbones.TorchvisionSwin(),
        "torchvision.vit": backbones.TorchvisionViT(),
        "transformers.segformer": backbones.TransformersSegFormer(),
        "transformers.swin": backbones.TransformersSwin(),
        "transformers.vit": backbones.TransformersViT(),
        "vit": backbones.ViT(),
    }


@hookimpl
def lse_loaders() -> Mapping[str, Any]:
    """Give the loader of what `lse_dec.save`, `lse train` and `lse demo` write."""
    from lse_dec.checkpoint.loading import load_if_ours

    return {"lse-dec": load_if_ours}


@hookimpl
def lse_commands() -> Mapping[str, Any]:
    """Give the commands that adapt a model and show what its canonicalizers do."""
    from lse_dec.commands.adapt import adapt
    from lse_dec.commands.look import look

    return {"adapt": adapt, "look": look}
