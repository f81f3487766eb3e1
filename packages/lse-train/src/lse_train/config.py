"""What a training run is: frozen settings, read from YAML, checked before any work begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lse_core.errors import LSEError, unknown_name

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

PRECISIONS = ("float32", "bfloat16", "float64")
PARTS = ("both", "backbone", "canonicalizer", "alternate")
DISTRIBUTIONS = ("log_uniform", "uniform", "smooth", "authors")


class ConfigError(LSEError, ValueError):
    """A run's settings are missing, of the wrong type, out of range, or do not fit together."""


def _need(right: bool, text: str) -> None:
    if not right:
        raise ConfigError(text)


def _one_of(kind: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise unknown_name(kind, name, known)


@dataclass(frozen=True)
class Model:
    """The model before it is adapted.

    Attributes:
        name: a timm model (plugins may register theirs with timm), or "module:function".
        kwargs: keywords of `timm.create_model` or of the function.
        initial: folder of an earlier run (or of `lse_dec.save`) whose weights to begin with; None begins at
            random. An adapted model stays adapted; then `adapt` must be left out.
    """

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    initial: str | None = None


@dataclass(frozen=True)
class Data:
    """Data sets by the name of a plugin (hook `lse_datasets`), and the keywords it is called with.

    What the plugin returns is either a map-style data set of (image, label), or holds `images` (uint8,
    (N, C, H, W)) and `labels` (int64, (N,)), which is faster, or draws anew: `sample(n, generator)`.
    Images are in [0, 1] (or uint8); a data set without labels gives images alone, or the label -1.

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
    options: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    val: dict[str, Any] | None = None
    tests: dict[str, dict[str, Any]] = field(default_factory=dict)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        _need(self.std is None or min(self.std, default=0.0) > 0, f"data.std must be above 0; got {self.std}")
        _need(self.workers >= 0, f"data.workers must be at least 0; got {self.workers}")

    def split(self, name: str) -> dict[str, Any]:
        """Keywords of a split: "train", "val" or the name of a test set."""
        own = {"train": self.train, "val": self.val or {}}
        if name not in own and name not in self.tests:
            raise unknown_name("split", name, [*own, *self.tests])
        return {**self.options, **(own[name] if name in own else self.tests[name])}


@dataclass(frozen=True)
class Method:
    """What is minimised.

    Attributes:
        name: "plain" (the task alone), "equivariance" (nothing but Eq. 5: no labels, the backbone stays
            as it is), one of `lse_train.recipes.methods`, another plugin's, or "module:Class", which is
            imported with trust alone.
        options: keywords of the method's class.
    """

    name: str = "plain"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Canonicalizer:
    """How canonicalizers learn: Eq. 5 on their own input, beside the backbone's task.

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
    """

    weight: float = 1.0
    ratio: float = 2.5
    segments: int = 4
    distribution: str = "log_uniform"
    steps: tuple[int, ...] | None = (2, 6)
    task_gradient: bool = False
    centre: float = 0.0

    def __post_init__(self) -> None:
        _need(self.weight >= 0, f"canonicalizer.weight must be at least 0; got {self.weight}")
        _need(self.centre >= 0, f"canonicalizer.centre must be at least 0; got {self.centre}")
        _need(self.ratio > 1, f"canonicalizer.ratio must be above 1; got {self.ratio}")
        _need(self.segments >= 1, f"canonicalizer.segments must be at least 1; got {self.segments}")
        _one_of("distribution", self.distribution, DISTRIBUTIONS)
        s = self.steps
        _need(
            s is None or (len(s) == 2 and 1 <= s[0] <= s[1]),
            f"canonicalizer.steps must be two numbers with 1 <= low <= high, or null; got {s}",
        )


@dataclass(frozen=True)
class Phase:
    """A stretch of training with a warm-up and a decay of its own, and the parts that learn in it.

    Attributes:
        train: "both", "backbone", "canonicalizer", or "alternate": one part a step, in turn. A part that
            does not learn is left as it is, its running statistics included.
        share: length, relative to the other phases.
    """

    train: str = "both"
    share: float = 1.0

    def __post_init__(self) -> None:
        _one_of("part", self.train, PARTS)
        _need(self.share > 0, f"optim.phases: share must be above 0; got {self.share}")


@dataclass(frozen=True)
class Optim:
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

    lr: float = 1e-3
    canonicalizer_lr: float = 3e-3
    layer_decay: float = 1.0
    weight_decay: float = 0.05
    betas: tuple[float, ...] = (0.9, 0.999)
    warmup: float = 0.1
    final: float = 0.01
    clip: float = 1.0
    canonicalizer_clip: float = 0.5
    phases: tuple[Phase, ...] = (Phase(),)

    def __post_init__(self) -> None:
        for name in ("lr", "canonicalizer_lr", "weight_decay", "clip", "canonicalizer_clip"):
            _need(getattr(self, name) >= 0, f"optim.{name} must be at least 0; got {getattr(self, name)}")
        for name in ("warmup", "final"):
            _need(0 <= getattr(self, name) <= 1, f"optim.{name} must lie within [0, 1]")
        _need(0 < self.layer_decay <= 1, f"optim.layer_decay must lie within (0, 1]; got {self.layer_decay}")
        _need(
            len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas),
            f"optim.betas must be two numbers within [0, 1); got {self.betas}",
        )
        _need(bool(self.phases), "optim.phases must name at least one phase")


@dataclass(frozen=True)
class Augment:
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

    warp_ratio: float = 1.0
    warp_segments: int = 4
    warp_distribution: str = "log_uniform"
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_prob: float = 1.0
    label_smoothing: float = 0.0
    erasing: float = 0.0

    def __post_init__(self) -> None:
        _need(self.warp_ratio >= 1, f"augment.warp_ratio must be at least 1; got {self.warp_ratio}")
        _need(self.warp_segments >= 1, f"augment.warp_segments must be at least 1; got {self.warp_segments}")
        _one_of("distribution", self.warp_distribution, DISTRIBUTIONS)
        _need(self.mixup >= 0 and self.cutmix >= 0, "augment.mixup and augment.cutmix must be at least 0")
        for name in ("mix_prob", "label_smoothing", "erasing"):
            _need(0 <= getattr(self, name) <= 1, f"augment.{name} must lie within [0, 1]")


@dataclass(frozen=True)
class RunConfig:
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
        batch_size: images an optimiser step, over all processes and parts together.
        accumulation: parts of a batch whose gradients are added up before a step.
        precision: "float32", "bfloat16" (autocast) or "float64".
        channels_last: keep the weights of convolutions channels last, which convolutional networks run
            faster with; sums round otherwise, so results differ in the last digits.
        seed: of the initial weights and of every draw.
        device: "auto", "cpu", "cuda". The number of processes is torchrun's.
        log_every: steps between two rows of the log.
        checkpoint_every: steps between two checkpoints to resume from; 0: only when interrupted.
        validate_every: steps between two validations; 0: only at the end.
    """

    model: Model
    data: Data
    adapt: dict[str, Any] | None = None
    method: Method = field(default_factory=Method)
    canonicalizer: Canonicalizer = field(default_factory=Canonicalizer)
    optim: Optim = field(default_factory=Optim)
    augment: Augment = field(default_factory=Augment)
    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 32
    accumulation: int = 1
    precision: str = "float32"
    channels_last: bool = False
    seed: int = 0
    device: str = "auto"
    log_every: int = 10
    checkpoint_every: int = 200
    validate_every: int = 0

    def __post_init__(self) -> None:
        _need((self.steps is None) != (self.epochs is None), "give either steps or epochs, and not both")
        length = self.steps if self.steps is not None else self.epochs
        _need(length is not None and length > 0, f"steps or epochs must be above 0; got {length}")
        for name, least in (("batch_size", 1), ("accumulation", 1), ("log_every", 1), ("seed", 0)):
            _need(getattr(self, name) >= least, f"{name} must be at least {least}; got {getattr(self, name)}")
        for name in ("checkpoint_every", "validate_every"):
            _need(getattr(self, name) >= 0, f"{name} must be at least 0; got {getattr(self, name)}")
        _need(
            self.batch_size % self.accumulation == 0,
            f"batch_size {self.batch_size} must be a multiple of accumulation {self.accumulation}",
        )
        _one_of("precision", self.precision, PRECISIONS)
        _need(
            self.method.name != "equivariance" or self.canonicalizer.weight > 0,
            "method equivariance is Eq. 5 alone: canonicalizer.weight must be above 0",
        )

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> RunConfig:
        """Build from plain values (see `lse_train.reading`), refusing what it does not know.

        Raises:
            UnknownNameError: a key that does not exist, with the nearest one.
            ConfigError: a value missing, of the wrong type or out of range.
        """
        from lse_train.reading import parse

        return parse(cls, settings)

    @classmethod
    def read(cls, path: Any, overrides: Mapping[str, Any] | None = None) -> RunConfig:
        """Read a YAML file; `overrides` replace values by dotted keys ("optim.lr").

        Raises:
            ConfigError: no such file or no YAML; and as `parse`.
        """
        from lse_train.reading import override, read_yaml

        return cls.parse(override(read_yaml(path), overrides or {}))

    def plain(self) -> dict[str, Any]:
        """The settings as JSON values; `parse` takes them back."""
        from lse_train.reading import plain

        result: dict[str, Any] = plain(self)
        return result
