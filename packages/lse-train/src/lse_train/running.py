"""A training run, from its first step or from where it stopped, to its measurements."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lse_core.card import card_of
from lse_core.errors import NotFiniteError
from lse_core.modes import modes_kept
from lse_core.preprocess import Preprocess
from lse_dec.checkpoint import save
from lse_train.augmentation import Augmentation
from lse_train.batch import Batch
from lse_train.config import ConfigError, RunConfig
from lse_train.log import RunLog
from lse_train.measure import evaluate, first_image, probe
from lse_train.methods import make_method
from lse_train.models import make_model
from lse_train.objective import Objective, Task, parts_at
from lse_train.optimiser import Schedule, clip, make_optimiser
from lse_train.process import RunInterruptedError, Signals, launch, signals_noted, sole_writer
from lse_train.seeding import number
from lse_train.sources import Feed, open_source, preprocess_for
from lse_train.state import (
    MODEL,
    RESULT,
    STATE,
    check_result,
    claim,
    read_json,
    read_state,
    write_json,
    write_state,
)

__all__ = ["FitResult", "RunInterruptedError", "fit"]

Watch = Callable[[int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class FitResult:
    """The result of a run.

    Attributes:
        metrics: what `evaluate` says of the validation set ("val") and of each test set by its name.
        folder: where the model lies, for `lse_dec.load` and every command that takes a model.
        seconds: time spent in training, over all resumptions.
        steps: optimiser steps.
    """

    metrics: dict[str, dict[str, Any]]
    folder: Path
    seconds: float
    steps: int


def fit(
    config: RunConfig,
    out: str | Path,
    resume: bool = True,
    watch: Watch | None = None,
    *,
    trust: bool = False,
) -> FitResult:
    """Train as `config` says, and measure.

    Everything drawn follows from the seed and the step, so a run that was killed and started again ends
    with the very same numbers, on a CPU bit for bit; one that is finished answers at once. Under
    `torchrun` every process calls this with the same arguments.

    The folder holds settings.json, metrics.csv, tensorboard/, state.pt while unfinished, then model/ and,
    last, result.json.

    Args:
        config: the run.
        out: its folder.
        resume: go on where an earlier call stopped; else start over, removing what it left.
        watch: called after every step with (steps done, steps in all, the last row of the log).
        trust: import and call functions and classes that the settings name as "module:name".

    Returns:
        Metrics, folder, seconds, steps; the same in every process but for the metrics, which only the
        first one measures.

    Raises:
        ConfigError: settings that do not fit together, or a folder that holds another run.
        NotFiniteError: a loss or gradient became NaN or infinite; names the step and which.
        RunInterruptedError: SIGINT or SIGTERM came; the state to resume from is written.
        OutputError: the folder cannot be written, or another process is writing to it.
        LSEError: see what it uses.
    """
    folder, new = Path(out), not Path(out).exists()
    fabric = launch(config)
    with ExitStack() as held:
        with fabric.rank_zero_first():
            if fabric.is_global_zero:
                held.enter_context(sole_writer(folder))
                claim(folder, config.plain(), fresh=not resume)
        finished = _finished(folder)
        if finished is not None:
            return finished
        # dropout and its like draw from torch's global generators: they are given back as they were
        devices = [fabric.device] if fabric.device.type == "cuda" else []
        held.enter_context(torch.random.fork_rng(devices=devices))
        try:
            run = _Run(config, folder, fabric, trust)
        except BaseException:
            if new and fabric.is_global_zero:  # nothing was trained: leave nothing behind
                shutil.rmtree(folder, ignore_errors=True)
            raise
        with signals_noted() as signals:
            run.train(signals, watch)
        return run.finish()


def _finished(folder: Path) -> FitResult | None:
    path = folder / RESULT
    if not path.exists():
        return None
    found = read_json(path)
    try:
        check_result(found)
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}; start over with --fresh") from error
    return FitResult(found["metrics"], folder / MODEL, found["seconds"], found["steps"])


class _Run:
    """A run in progress, in this process."""

    def __init__(self, config: RunConfig, folder: Path, fabric: Any, trust: bool) -> None:
        self.config, self.folder, self.fabric = config, folder, fabric
        self.world, total = int(fabric.world_size), config.batch_size
        if total % self.world:
            raise ConfigError(f"batch_size {total} must be a multiple of the {self.world} processes")
        method = make_method(config.method, trust=trust)
        self.source = open_source(config.data, "train", config.seed)
        self.model = make_model(config, trust=trust)
        self.objective = Objective(self.model, method, config.canonicalizer, config.seed)
        self.dtype = torch.float64 if config.precision == "float64" else torch.float32
        self.model.to(device=fabric.device, dtype=self.dtype)
        if config.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.preprocess, self.classes = self._look()
        augment = Augmentation(config.augment, self.preprocess, self.classes, config.seed, self.dtype)
        self.feed = Feed(self.source, augment, total, fabric.global_rank, self.world, fabric.device)
        self.steps = config.steps or max(1, round((config.epochs or 0.0) * len(self.source) / total))
        self.schedule = Schedule(config.optim, self.steps)
        members, parts = self.objective.members, self.objective.available
        self.optimiser = make_optimiser(self.model, config.optim, members, parts)
        self.window: dict[str, list[float]] = {}
        self.step, self.seconds = 0, 0.0
        self._resume()
        # after the weights are in place: the wrapper hands the first process's to all others
        self.wrapped: Any
        self.stepper: Any
        self.wrapped, self.stepper = fabric.setup(self.objective, self.optimiser)
        self.pending: list[tuple[int, dict[str, Tensor]]] = []

    def _look(self) -> tuple[Preprocess, int]:
        """Preprocessing and number of classes, from one image put through the model."""
        data, device = self.config.data, self.fabric.device
        image, label = first_image(self.source, device)
        if label < 0 and not self.objective.label_free:
            raise ConfigError(
                f"data set {data.name!r} has no labels: only method equivariance (Eq. 5) goes without"
            )
        made = preprocess_for(image, self.source.data, self.model, data.mean, data.std)
        return made, probe(self.model, self.source, made, f"data set {data.name!r}", self.dtype, device)

    def _resume(self) -> None:
        state = read_state(self.folder)
        if state is None:
            return
        try:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
            self.window = {str(name): [float(v) for v in values] for name, values in state["window"].items()}
            if not 0 <= self.step <= self.steps:
                raise ValueError(f"step {self.step} of {self.steps}")
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ConfigError(
                f"the state in {self.folder} does not fit this run; start over with --fresh"
            ) from error

    def train(self, signals: Signals, watch: Watch | None) -> None:
        """All steps that are left."""
        config, alone = self.config, self.world == 1
        begun = time.monotonic() - self.seconds
        row: dict[str, float] = {}
        first = RunLog(self.folder, self.step) if self.fabric.is_global_zero else nullcontext()
        with first as log:
            for step, batch in self.feed.steps(self.step, self.steps):
                self.pending.append((step, self._step(step, batch)))
                self.step, self.seconds = step + 1, time.monotonic() - begun
                last = self.step == self.steps
                logged, saved = self._due(config.log_every), self._due(config.checkpoint_every)
                # processes must agree to stop, which they do where they meet anyway
                stopped = signals.received if alone else logged and self._any(signals.received)
                if logged or saved or stopped:
                    self._settle()
                if logged:
                    row = self._row()
                    if log is not None:
                        log.add(self.step, row)
                if saved or stopped:
                    self._save()
                if stopped and not last:
                    stop = RunInterruptedError(
                        f"interrupted after step {self.step} of {self.steps}; the state is in {self.folder}: "
                        "the same command goes on from it"
                    )
                    stop.status = 128 + signals.number
                    raise stop
                if watch is not None:
                    watch(self.step, self.steps, row)

    def _due(self, every: int) -> bool:
        """Whether it is time for what is done every so many steps (0: never) and after the last."""
        return self.step == self.steps or (every > 0 and self.step % every == 0)

    def _step(self, step: int, batch: Batch) -> dict[str, Tensor]:
        """One optimiser step; returns losses, gradient norms and what was watched, on the device."""
        config, objective = self.config, self.objective
        # dropout and its like: a stream for each step and process
        torch.manual_seed(number(config.seed, "model", step, self.fabric.global_rank))
        parts = parts_at(config.optim, step, self.steps, objective.available)
        if not parts:
            raise ConfigError(
                f"no part learns at step {step}: its phase trains a part that this run keeps fixed"
            )
        objective.set_modes(parts)
        rates = self.schedule.apply(self.optimiser, step)
        logged = (step + 1) % config.log_every == 0 or step + 1 == self.steps
        self.stepper.zero_grad(set_to_none=True)
        values = self.wrapped(Task(batch, parts, logged))
        losses = [value.to(self.dtype) for name, value in values.items() if not name.startswith("log/")]
        self.fabric.backward(torch.stack(losses).sum())
        found = {
            name.removeprefix("log/") if name.startswith("log/") else f"loss/{name}": value.detach()
            for name, value in values.items()
        }
        found |= clip(objective.members, parts, config.optim)
        self.stepper.step()
        return {**found, **{k: torch.tensor(v) for k, v in rates.items()}}

    def _settle(self) -> None:
        """Read the losses of the last steps from the device; refuse to go on from NaN."""
        for step, found in self.pending:
            values = torch.stack([value.detach().double().to(self.fabric.device) for value in found.values()])
            if self.world > 1:  # every process sees the same row, and the same NaN
                values = self.fabric.all_reduce(values, reduce_op="mean")
            for name, here in zip(found, values.tolist(), strict=True):
                if name.startswith(("loss/", "gradient/")) and not math.isfinite(here):
                    kind, _, part = name.partition("/")
                    raise NotFiniteError(
                        f"step {step + 1} of {self.steps}: the {kind} {part!r} is {here}; {self._kept()}. "
                        "Lower optim.lr or optim.canonicalizer_lr, or use precision float32"
                    )
                self.window.setdefault(name, []).append(here)
        self.pending = []

    def _kept(self) -> str:
        kept = (self.folder / STATE).exists()
        return f"the last good state is in {self.folder}" if kept else "no state was written yet"

    def _row(self) -> dict[str, float]:
        """Means since the last row; rates as they are."""
        row = {
            name: values[-1] if name.startswith("lr/") else sum(values) / len(values)
            for name, values in self.window.items()
        }
        self.window = {}
        return row

    def _any(self, flag: bool) -> bool:
        found = self.fabric.all_reduce(torch.tensor(float(flag), device=self.fabric.device), reduce_op="sum")
        return bool(found > 0)

    def _save(self) -> None:
        if self.fabric.is_global_zero:
            state = {
                "step": self.step,
                "seconds": self.seconds,
                "window": self.window,
                "model": self.model.state_dict(),
                "optimiser": self.stepper.optimizer.state_dict(),
            }
            write_state(self.folder, state)
        self.fabric.barrier()

    def _measured(self, split: str) -> dict[str, Any]:
        source = open_source(self.config.data, split, self.config.seed)
        mean, std, seed = self.preprocess.mean, self.preprocess.std, self.config.seed
        with modes_kept(self.model):
            return evaluate(self.model, source.data, mean=mean, std=std, device=self.fabric.device, seed=seed)

    def _write(self, place: Path) -> None:
        """Save the model with all that later steps need to know."""
        names = getattr(self.source.data, "classes", None) or card_of(self.model).class_names
        if names is not None and len(names) != self.classes:  # of the task that the weights came from
            names = None
        save(
            self.model.eval(),
            place,
            preprocess=self.preprocess,
            class_names=None if names is None else [str(name) for name in names],
            training=told(self.config),
        )

    def finish(self) -> FitResult:
        """Measure, write the model and, last, the result; then delete the state to resume from."""
        metrics: dict[str, dict[str, Any]] = {}
        place = self.folder / MODEL
        if self.fabric.is_global_zero:
            self._write(place)
            splits = [*(["val"] if self.config.data.val is not None else []), *self.config.data.tests]
            metrics = {split: self._measured(split) for split in splits}
            result = FitResult(metrics, place, round(self.seconds, 2), self.steps)
            write_json(self.folder / RESULT, {**asdict(result), "folder": MODEL})
            (self.folder / STATE).unlink(missing_ok=True)
        self.fabric.barrier()
        return FitResult(metrics, place, round(self.seconds, 2), self.steps)


def told(config: RunConfig) -> dict[str, Any]:
    """What a checkpoint says about the run that made it: its settings, without what it says elsewhere."""
    plain = {name: value for name, value in config.plain().items() if name not in ("model", "adapt")}
    plain["data"] = {name: value for name, value in plain["data"].items() if name not in ("mean", "std")}
    return plain
