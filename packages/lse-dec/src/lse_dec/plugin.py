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
def lse_datasets() -> Mapping[str, Any]:
    """Give the locally scaled digits and scenes, and readers of folders."""
    from lse_dec.data import build_digits, build_image_folder, build_scaled_folder, build_scenes
    from lse_dec.data.pictures import build_pictures

    return {
        "digits": build_digits,
        "image_folder": build_image_folder,
        "pictures": build_pictures,
        "scaled_folder": build_scaled_folder,
        "scenes": build_scenes,
    }


@hookimpl
def lse_methods() -> Mapping[str, Any]:
    """Give the task alone, Eq. 5 alone, and the paper's methods."""
    from lse_dec.recipes.methods import METHODS
    from lse_dec.training.methods import Equivariance, Plain

    return {"plain": Plain, "equivariance": Equivariance, **METHODS}


@hookimpl
def lse_models() -> Mapping[str, Any]:
    """Give the classifiers of numbers that the recipes and the demo train."""
    from lse_dec.demo.model import number_classifier
    from lse_dec.recipes.models import number_model

    return {"demo_numbers": number_classifier, "numbers": number_model}


@hookimpl
def lse_loaders() -> Mapping[str, Any]:
    """Give the loader of what `lse_dec.save`, `lse train` and `lse demo` write."""
    from lse_dec.checkpoint.folder import load_if_ours

    return {"lse-dec": load_if_ours}


@hookimpl
def lse_commands() -> Mapping[str, Any]:
    """Give the commands for models, training, data and the demo."""
    from lse_dec.commands.adapt import adapt
    from lse_dec.commands.evaluate import evaluate
    from lse_dec.commands.look import look
    from lse_dec.commands.train import train
    from lse_dec.data.commands import data
    from lse_dec.demo.command import demo

    return {
        "adapt": adapt,
        "data": data,
        "demo": demo,
        "evaluate": evaluate,
        "look": look,
        "train": train,
    }
