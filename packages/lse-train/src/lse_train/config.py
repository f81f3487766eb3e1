"""What a training run is: frozen settings, read from YAML, checked before any work begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from lse_core.errors import unknown_name
from lse_core.settings import Settings
from lse_data.fields import Count, Flag, Number, Seed, Share, Whole, one_of, several
from lse_train.reading import ConfigError, override, parse, read_yaml

__all__ = [
    "Augment",
    "Canonicalizer",
    "ConfigError",
    "Data",
    "Method",
    "Model",
    "Optim",
    "Phase",
    "RunConfig",
]

REMOVED: Mapping[str, tuple[Any, str]] = {
    "accumulation": (
        1,
        "batches are not added up before a step: lower batch_size, or share it by torchrun",
    ),
    "validate_every": (0, "the validation set is measured once, when training has ended"),
}
"""Settings of earlier versions: the value that still means the same, and what to do about any other."""

AtLeast0 = Annotated[Number, Field(ge=0)]
Distribution = Annotated[str, one_of("distribution", ("log_uniform", "uniform", "smooth", "authors"))]
Below1 = Annotated[Number, Field(ge=0, lt=1)]


class Named(Settings):
    """Settings with a `name`, for which the bare name may stand."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, values: Any) -> Any:
        if isinstance(values, str):
            return {"name": values}
        if not isinstance(values, Mapping | Settings):
            raise ValueError("must be a name, or settings as `key: value`")
        return values


class Model(Named):
    """The model before it is adapted.

    Attributes:
        name: a timm model (plugins may register theirs with timm), a plugin's, or "module:function".
        kwargs: keywords of `timm.create_model` or of the function.
        initial: folder of an earlier run (or of `lse_dec.save`) whose weights to begin with, or a file of
            weights for a timm model, whose first convolution and classifier may have another size
            (`lse_core.weights.load_weights`); None begins at random. An adapted model stays adapted; then
            `adapt` must be left out.
    """

    name: str
    kwargs: dict[str, Any] = Field(default_factory=dict)
    initial: str | None = None


class Data(Named):
    """Data sets by the name of a plugin (hook `lse_datasets`), and the keywords it is called with.

    What the plugin returns is either a map-style data set of (image, label), or holds `images` (uint8,
    (N, C, H, W)) and `labels` (int64, (N,)), which is faster. Images are in [0, 1] (or uint8); a data set
    without labels gives images alone, or the label -1.

    Attributes:
        name: name of the plugin.
        options: keywords common to all splits.
        train: keywords of the training set, over `options`.
        val: keywords of the validation set; None for none.
        tests: keywords of each test set by its name, measured once after training.
        mean: subtracted from each channel; one number stands for all channels.
        std: divided by, after that. None for either: the data set's own `mean` and `std`, else those
            of the model's pretrained configuration where the channels agree, else 0.5.
        workers: processes that read a map-style data set; 0 reads in this one.
    """

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)
    val: dict[str, Any] | None = None
    tests: dict[str, dict[str, Any]] = Field(default_factory=dict)
    mean: Annotated[tuple[Number, ...] | None, several] = None
    std: Annotated[tuple[Annotated[Number, Field(gt=0)], ...] | None, several] = None
    workers: Annotated[Whole, Field(ge=0)] = 0

    def split(self, name: str) -> dict[str, Any]:
        """Keywords of a split: "train", "val" or the name of a test set; else an UnknownNameError."""
        own = {"train": self.train, "val": self.val or {}, **self.tests}
        if name not in own:
            raise unknown_name("split", name, own)
        return {**self.options, **own[name]}


class Method(Named):
    """What is minimised.

    Attributes:
        name: "plain" (the task alone), "equivariance" (nothing but Eq. 5: no labels, the backbone stays
            as it is), "invl" or "augl" (see `lse_train.methods`), another plugin's, or "module:Class", which
            is imported with trust alone.
        options: keywords of the method's class.
    """

    name: str = "plain"
    options: dict[str, Any] = Field(default_factory=dict)


class Canonicalizer(Settings):
    """How canonicalizers learn: by Eq. 5 on their own input, while the backbone learns the task.

    Attributes:
        weight: weight of Eq. 5; 0 leaves it out.
        ratio: slopes of its random warps lie within [1/ratio, ratio].
        segments: segments an axis of those warps.
        distribution: how they are drawn, see `lse_core.random`.
        steps: least and greatest number of solver steps, drawn anew for every batch; None takes the
            canonicalizer's own (those without steps always do).
        task_gradient: whether the task's gradient reaches canonicalizers too, as in the paper. Off,
            because together with Eq. 5 it keeps the image's at the identity; within the range of the
            training, modules at latent stages need it (docs/results/tableA3.md).
        centre: weight, within Eq. 5, of the mean answer's distance from the identity, over a process's part
            of the batch; what a canonical form looks like is otherwise left to chance.
        prior: share, within [0, 1], of the loss that takes every training picture as its own canonical form,
            in place of Eq. 5 (see `lse_dec.losses.canonicalizer_equivariance_loss`).
    """

    weight: AtLeast0 = 1.0
    ratio: Annotated[Number, Field(gt=1)] = 2.5
    segments: Count = 4
    distribution: Distribution = "log_uniform"
    steps: tuple[Count, Count] | None = (2, 6)
    task_gradient: Flag = False
    centre: AtLeast0 = 0.0
    prior: Share = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> Canonicalizer:
        if self.steps is not None and self.steps[0] > self.steps[1]:
            raise ValueError(f"steps must be null or [low, high] with low <= high; got {list(self.steps)}")
        return self


class Phase(Settings):
    """A stretch of training with a warm-up and a decay of its own, and the parts that learn in it.

    Attributes:
        train: "both", "backbone" or "canonicalizer". A part that does not learn is left as it is, its
            running statistics included.
        share: length, relative to the other phases.
    """

    train: Annotated[str, one_of("part", ("both", "backbone", "canonicalizer"))] = "both"
    share: Annotated[Number, Field(gt=0)] = 1.0

    @model_validator(mode="before")
    @classmethod
    def _no_turns(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("train") == "alternate":
            raise ValueError("train: alternate is gone; give both, or phases for one part after the other")
        return values


class Optim(Settings):
    """AdamW, a rate and a bound of gradients for each part, one schedule a phase for both.

    Attributes:
        lr: peak rate of the backbone.
        canonicalizer_lr: peak rate of the canonicalizers.
        layer_decay: factor on the rate from each layer to the one before it, by timm's groups; 1 is none.
        weight_decay: of matrices; vectors and what the model exempts have none.
        betas: AdamW's.
        warmup: share of the steps over which rates rise from zero.
        final: last rate as a share of the peak, at the end of a cosine.
        clip: bound on the norm of the backbone's gradient; 0 is none.
        canonicalizer_clip: the same for the canonicalizers.
        phases: what learns when.
    """

    lr: AtLeast0 = 1e-3
    canonicalizer_lr: AtLeast0 = 3e-3
    layer_decay: Annotated[Number, Field(gt=0, le=1)] = 1.0
    weight_decay: AtLeast0 = 0.05
    betas: tuple[Below1, Below1] = (0.9, 0.999)
    warmup: Share = 0.1
    final: Share = 0.01
    clip: AtLeast0 = 1.0
    canonicalizer_clip: AtLeast0 = 0.5
    phases: Annotated[tuple[Phase, ...], several, Field(min_length=1)] = (Phase(),)


class Augment(Settings):
    """What happens to training images; all draws follow from (seed, step, image).

    Attributes:
        warp_ratio: slopes of a random monotone warp of each image lie within [1/ratio, ratio]; 1 is none.
        warp_segments: its segments an axis.
        warp_distribution: how it is drawn, see `lse_core.random`.
        mixup: alpha of mixup; 0 is none.
        cutmix: alpha of cutmix; 0 is none. With both, each batch gets one of them.
        mix_prob: chance that a batch is mixed at all.
        label_smoothing: share of each label spread over all classes.
        erasing: chance that an image loses a random rectangle (timm's random erasing, to zero).
    """

    warp_ratio: Annotated[Number, Field(ge=1)] = 1.0
    warp_segments: Count = 4
    warp_distribution: Distribution = "log_uniform"
    mixup: AtLeast0 = 0.0
    cutmix: AtLeast0 = 0.0
    mix_prob: Share = 1.0
    label_smoothing: Share = 0.0
    erasing: Share = 0.0


class RunConfig(Settings):
    """One training run. Made by `RunConfig.read` or `RunConfig.parse`; equal settings, equal results.

    Attributes:
        model: see `Model`; a bare string is its name, and so for `data` and `method`.
        data: see `Data`.
        adapt: arguments of `lse_dec.adapt` ("sites", "canonicalizer", "rule", ...); None leaves the model
            as it is.
        method: see `Method`.
        canonicalizer: see `Canonicalizer`.
        optim: see `Optim`.
        augment: see `Augment`.
        steps: optimiser steps; give this or `epochs`.
        epochs: passes over the training set, not necessarily whole.
        batch_size: images an optimiser step, over all processes together.
        precision: "float32", "bfloat16" (autocast) or "float64".
        channels_last: keep the weights of convolutions channels last, which convolutional networks run
            faster with; sums round otherwise, so results differ in the last digits.
        seed: of the initial weights and of every draw.
        device: "auto", "cpu", "cuda". The number of processes is torchrun's.
        log_every: steps between two rows of the log.
        checkpoint_every: steps between two checkpoints to resume from; 0: only when interrupted.
    """

    model: Model
    data: Data
    adapt: dict[str, Any] | None = None
    method: Method = Method()
    canonicalizer: Canonicalizer = Canonicalizer()
    optim: Optim = Optim()
    augment: Augment = Augment()
    steps: Count | None = None
    epochs: Annotated[Number, Field(gt=0)] | None = None
    batch_size: Count = 32
    precision: Annotated[str, one_of("precision", ("float32", "bfloat16", "float64"))] = "float32"
    channels_last: Flag = False
    seed: Seed = 0
    device: str = "auto"
    log_every: Count = 10
    checkpoint_every: Annotated[Whole, Field(ge=0)] = 200

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, values: Any) -> Any:
        return without_removed(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _together(self) -> RunConfig:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs, and not both")
        if self.method.name == "equivariance" and not self.canonicalizer.weight:
            raise ValueError("method equivariance is Eq. 5 alone: canonicalizer.weight must be above 0")
        return self

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> RunConfig:
        """Build from plain values, refusing what it does not know.

        Raises:
            UnknownNameError: a key that does not exist, with the nearest one.
            ConfigError: a value missing, of the wrong type or out of range.
        """
        return parse(cls, settings)

    @classmethod
    def read(cls, path: Any, overrides: Mapping[str, Any] | None = None) -> RunConfig:
        """Read a YAML file; `overrides` replace values by dotted keys ("optim.lr").

        Raises:
            ConfigError: no such file or no YAML; and as `parse`.
        """
        return cls.parse(override(read_yaml(path), overrides or {}))


def without_removed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run without those that are gone.

    Raises:
        ValueError: one that is gone had another value than the one that changes nothing.
    """
    for name, (neutral, instead) in REMOVED.items():
        if settings.get(name, neutral) != neutral:
            raise ValueError(f"the setting {name} is gone: {instead}")
    return {name: value for name, value in settings.items() if name not in REMOVED}
