"""Data sets behind one face: images by their number, whatever the plugin returned, and batches."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lse_core.card import card_of
from lse_core.errors import DataError, LSEError, UnknownNameError
from lse_core.plugins import registry
from lse_core.preprocess import Preprocess
from lse_core.settings import validated
from lse_train.augmentation import Augmentation
from lse_train.batch import Batch
from lse_train.config import ConfigError, Data
from lse_train.seeding import generator

__all__ = ["Feed", "Order", "Source", "build_data", "open_source", "preprocess_for"]

RESIDENT = 2**31
"""Bytes of images up to which a data set is kept on a GPU."""


class Source:
    """A data set as a training run uses it.

    Attributes:
        data: what the plugin returned.
        labels: int64 (N,), where the data set holds them as a tensor.
    """

    def __init__(self, data: Any, what: str, *, workers: int = 0, seed: int = 0) -> None:
        self.data, self.workers, self.seed = data, workers, seed
        images, labels = getattr(data, "images", None), getattr(data, "labels", None)
        self.tensors = images if isinstance(images, Tensor) else None
        self.labels = labels if isinstance(labels, Tensor) else None
        if not hasattr(data, "__len__") or not (self.tensors is not None or hasattr(data, "__getitem__")):
            raise DataError(
                f"{what} is a {type(data).__name__}: it needs a length and items (data sets that draw every "
                "batch anew by `sample` are no longer taken: draw so many images as one epoch is to have)"
            )
        if len(data) == 0:
            raise DataError(f"{what} is empty: it has no images")

    def __len__(self) -> int:
        return len(self.data)

    def read(self, picks: Iterable[Tensor], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield float images (b, C, H, W) in [0, 1] and int64 labels (b,) for each tensor of places (b,)."""
        if self.tensors is not None:
            if device.type == "cuda" and self.tensors.nbytes <= RESIDENT:
                self.tensors = self.tensors.to(device)  # once for all steps
            for pick in picks:
                # bytes travel, floats are made on the device
                images = self.tensors[pick.to(self.tensors.device)].to(device)
                labels = torch.full_like(pick, -1) if self.labels is None else self.labels[pick]
                yield _scaled(images), labels.to(device)
            return
        loader = torch.utils.data.DataLoader(
            self.data,
            batch_sampler=(pick.tolist() for pick in picks),
            num_workers=self.workers,
            collate_fn=collate,
            pin_memory=device.type == "cuda",
            # the loader draws a seed for its workers: not from the generator that models draw from
            generator=torch.Generator().manual_seed(self.seed),
        )
        for images, labels in loader:
            yield _scaled(images.to(device)), labels.to(device)


def collate(items: list[Any]) -> tuple[Tensor, Tensor]:
    """Stack items: images alone, or (image, label, ...)."""
    pairs = [item if isinstance(item, tuple | list) else (item, -1) for item in items]
    shapes = {tuple(pair[0].shape) for pair in pairs}
    if len(shapes) > 1:
        raise DataError(f"images of one batch differ in shape: {sorted(shapes)[:3]}; give one resolution")
    labels = [-1 if len(pair) < 2 or pair[1] is None else int(pair[1]) for pair in pairs]
    return torch.stack([pair[0] for pair in pairs]), torch.tensor(labels)


def _scaled(images: Tensor) -> Tensor:
    return images if images.is_floating_point() else images.float() / 255


def build_data(name: str, options: dict[str, Any], preprocess: Preprocess | None = None) -> Any:
    """Call the data set plugin `name`; a keyword or value it does not take is a ConfigError.

    One that reads pictures by a `preprocess` gets the one given, unless the options have another.
    """
    factory = registry().get("dataset", name)
    if preprocess is not None and "preprocess" in inspect.signature(factory).parameters:
        options = {"preprocess": preprocess, **options}
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        raise ConfigError(f"data set {name!r}: {error}{_hint(options, str(error))}") from error
    except ValueError:
        pass  # a builtin without a signature
    try:
        return factory(**options)
    except UnknownNameError as error:
        if not _hint(options, str(error)):
            raise
        raise UnknownNameError(f"{error}{_hint(options, str(error))}") from error
    except LSEError:
        raise
    except (AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(
            f"data set {name!r} cannot be made of its settings, {', '.join(options) or 'none'}: {said}"
        ) from error


def _hint(options: Mapping[str, Any], said: str) -> str:
    """Where `mean` and `std` belong, if what was said is that a data set takes none."""
    if not any(name in options and repr(name) in said for name in ("mean", "std")):
        return ""
    return " mean and std go under data: itself, not under its options, train, val or tests."


def open_source(data: Data, split: str, seed: int = 0) -> Source:
    """The split "train", "val" or a test set of `data`.

    Raises:
        UnknownNameError: no such plugin or split.
        DataError: no images, or not a data set.
    """
    built = build_data(data.name, data.split(split))
    return Source(built, f"data set {data.name!r} ({split})", workers=data.workers, seed=seed)


class Order:
    """Which images each step sees: all in random order before any comes again."""

    def __init__(self, total: int, batch_size: int, seed: int) -> None:
        self.total, self.batch_size, self.seed = total, batch_size, seed
        self._round: tuple[int, Tensor] = (-1, torch.empty(0, dtype=torch.long))

    def step(self, step: int) -> Tensor:
        """Places of the images of `step`, int64 (batch_size,)."""
        first = step * self.batch_size
        places = torch.arange(first, first + self.batch_size)
        rounds = places // self.total
        out = torch.empty_like(places)
        for number in rounds.unique().tolist():
            here = rounds == number
            out[here] = self._permutation(number)[places[here] % self.total]
        return out

    def _permutation(self, number: int) -> Tensor:
        if self._round[0] != number:
            order = torch.randperm(self.total, generator=generator(self.seed, "order", number))
            self._round = (number, order)
        return self._round[1]


class Feed:
    """Gives this process its part of each step's batch, read ahead of the step.

    The batch of a step depends on the step alone, and is cut into as many parts as there are processes.

    Args:
        source: the training set.
        augment: makes batches of images.
        total: images a step, over all processes.
        rank: number of this process.
        world: number of processes.
        device: where batches go.
    """

    def __init__(
        self, source: Source, augment: Augmentation, total: int, rank: int, world: int, device: torch.device
    ) -> None:
        self.source, self.augment, self.total, self.device = source, augment, total, device
        self.rows = torch.arange(total).view(world, -1)[rank]
        self.order = Order(len(source), total, augment.seed)

    def steps(self, first: int, last: int) -> Iterator[tuple[int, Batch]]:
        """Yield (step, batch) for the steps from `first` to `last` - 1."""
        needed = self.augment.rows(self.rows, self.total)
        picks = (self.order.step(step)[needed] for step in range(first, last))
        for step, (images, labels) in zip(
            range(first, last), self.source.read(picks, self.device), strict=True
        ):
            yield step, self.augment(images, labels, self.rows, self.total, step)


def preprocess_for(
    image: Tensor,
    data: Any,
    model: nn.Module,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Preprocess:
    """How images of a data set become a model's input.

    Args:
        image: (1, C, H, W), one of them.
        data: the data set; what it says of its pictures' geometry (`preprocess`) is taken over, and its
            `mean` and `std` where neither the caller nor the model's card has any.
        model: whose card says how it was trained; else timm's data config, where the channels agree,
            comes after the data set's numbers, and 0.5 last.
        mean: by channel, of values in [0, 1], over all of these; one number stands for all channels.
        std: as `mean`.

    Raises:
        LSEError: numbers for another number of channels.
    """
    channels = image.shape[1]
    card = card_of(model).preprocess
    known = [card, *([Preprocess.from_timm(c)] if (c := getattr(model, "pretrained_cfg", None)) else [])]
    numbers: dict[str, tuple[float, ...]] = {}
    for name, given in (("mean", mean), ("std", std)):
        told = getattr(data, name, None)
        offers = [getattr(k, name) if k is not None and k.channels == channels else None for k in known]
        told = None if callable(told) else told
        value = next((v for v in (given, offers[0], told, *offers[1:]) if v is not None), 0.5)
        found = (float(value),) if isinstance(value, int | float) else tuple(float(v) for v in value)
        numbers[name] = found * channels if len(found) == 1 else found
        if len(numbers[name]) != channels:
            raise LSEError(f"data.{name} has {len(found)} numbers for images of {channels} channels")
    geometry = getattr(data, "preprocess", None) or card
    values = geometry.plain() if isinstance(geometry, Preprocess) else {}
    size = (image.shape[2], image.shape[3])
    return validated(Preprocess, {**values, "channels": channels, "size": size, **numbers}, "data")
