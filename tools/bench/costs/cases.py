"""One table: the models that it compares, counted and timed in turns, kept as plain numbers."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from costs.authors import authors_model, family, revision
from costs.counts import count, observe_compiled
from costs.timing import code_digest, in_turns, machine, versions
from costs.variants import DEFAULT, VARIANTS, adapted, displacement, plain, site_names
from lse_core.atomic import replacing
from lse_core.errors import LSEError

__all__ = ["GROUPS", "Case", "Settings", "family_of", "measure", "runner", "take_up"]

GROUPS = ("models", "choices", "authors", "compiled", "graphs")
"""Tables: the default adaptation; every other choice; the authors' code; compiled; as CUDA graphs."""


@dataclass(frozen=True)
class Settings:
    """What holds for every table of a run."""

    device: str = "cpu"
    rounds: int = 20
    seconds: float = 20.0
    seed: int = 0
    size: int = 224
    keeps_memory: bool = False
    authors: Path | None = None
    compile_modes: tuple[str, ...] = ("default",)

    def fingerprint(self, group: str) -> dict[str, Any]:
        """What a kept table of a group must have been measured with to be taken up again."""
        own: dict[str, Any] = {}
        if group == "authors" and self.authors is not None:
            own = {"authors": revision(self.authors)}
        if group == "compiled":
            own = {"compile_modes": list(self.compile_modes)}
        return {
            **{k: v for k, v in asdict(self).items() if k not in ("authors", "compile_modes")},
            **own,
            "machine": machine(self.device),
            "versions": versions(),
            "code": code_digest(),
        }


@dataclass(frozen=True)
class Case:
    """One table: `group` of `GROUPS`, mode "inference" or "training", precision "fp32", "tf32" or "bf16"."""

    group: str
    model: str
    batch: int
    mode: str
    precision: str = "fp32"

    @property
    def key(self) -> str:
        """Name of its file."""
        return "-".join((self.group, self.model, f"b{self.batch}", self.mode, self.precision))


def take_up(case: Case, settings: Settings, work: Path) -> dict[str, Any] | None:
    """The kept table, or None if there is none of these settings and sources."""
    path = work / f"{case.key}.json"
    if not path.is_file():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record if record["settings"] == settings.fingerprint(case.group) else None


def measure(case: Case, settings: Settings, work: Path | None = None) -> dict[str, Any]:
    """Measure one table, and keep it in `work`.

    A row that cannot be run is kept with its reason; one whose base cannot be run raises.

    Returns:
        The case, the settings, the names and bytes of the sites' features, how far the warps move points
        (share of the side) and rows: name, the row its time is compared with, seconds of every
        round, counts, and why it did not run, if it did not.
    """
    torch.manual_seed(settings.seed)
    tf32 = case.precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    dtype = torch.bfloat16 if case.precision == "bf16" else torch.float32
    models = _Models(case, settings, dtype)
    image = models.image()
    calls: dict[str, Callable[[], object]] = {}
    rows: list[dict[str, Any]] = []
    for name, against, make in models.rows():
        row: dict[str, Any] = {"name": name, "against": against, "seconds": [], "counts": None, "error": ""}
        rows.append(row)
        try:
            call = runner(make(), image, case.mode, cast=name == "authors")
            call()
            opaque = name.startswith(("compiled", "graph"))
            row["counts"] = asdict((observe_compiled if opaque else count)(call, settings.device))
            calls[name] = call
        except Exception as error:  # compilers, drivers and foreign code fail in ways of their own
            if name == "base":
                raise
            text = str(error).strip().splitlines()
            row["error"] = text[0][:200] if text else type(error).__name__
    # many rows need more time for as many rounds
    seconds = settings.seconds * max(1.0, len(calls) / 5)
    taken = in_turns(calls, rounds=settings.rounds, seconds=seconds)
    for row in rows:
        row["seconds"] = taken.get(row["name"], [])
    record = {
        "case": asdict(case),
        "settings": settings.fingerprint(case.group),
        **models.sites(image),
        "rows": rows,
    }
    if work is not None:
        with replacing(work / f"{case.key}.json", overwrite=True) as path:
            path.write_text(json.dumps(record), encoding="utf-8")
    return record


def runner(model: nn.Module, image: Tensor, mode: str, *, cast: bool = False) -> Callable[[], object]:
    """One inference, or one forward and backward pass of a classifier with all its parameters.

    No optimiser: it would take the same time for both and hide what the DEC adds. `cast` is for models
    that do not run in bfloat16 throughout: their weights stay in float32, and autocast lowers the rest.
    """
    autocast = cast and image.dtype == torch.bfloat16
    if autocast:
        image = image.float()
    context = torch.autocast(image.device.type, torch.bfloat16) if autocast else nullcontext()
    target = torch.arange(len(image), device=image.device) % 10
    parameters = list(model.parameters())

    def infer() -> None:
        with torch.no_grad(), context:
            model(image)
        if image.is_cuda:
            torch.cuda.synchronize()

    def train() -> None:
        with context:
            loss = nn.functional.cross_entropy(model(image).float(), target)
        loss.backward()
        for parameter in parameters:
            parameter.grad = None
        if image.is_cuda:
            torch.cuda.synchronize()

    return train if mode == "training" else infer


class _Models:
    """The models of one table, all on the same weights, made when their turn comes."""

    def __init__(self, case: Case, settings: Settings, dtype: torch.dtype) -> None:
        self.case, self.settings, self.dtype = case, settings, dtype
        whole = plain(case.model, settings.size, seed=settings.seed).to(settings.device)
        self.whole = whole.train(case.mode == "training")
        self.base = self.whole if dtype == torch.float32 else copy.deepcopy(self.whole).to(dtype)
        self.default = adapted(self.base, seed=settings.seed)

    def rows(self) -> list[tuple[str, str, Callable[[], nn.Module]]]:
        """Name, the row to compare with, and how to make the model."""
        rows: list[tuple[str, str, Callable[[], nn.Module]]] = [
            ("base", "base", lambda: self.base),
            ("adapted", "base", lambda: self.default),
        ]
        if self.case.group == "choices":
            for v in VARIANTS:
                rows.append((v.name, "base", lambda v=v: adapted(self.base, v, seed=self.settings.seed)))  # type: ignore[misc]
        if self.case.group == "authors":
            rows.append(("authors", "base", self._authors))
        if self.case.group == "graphs":
            rows.append(("graph of base", "base", lambda: Captured(self.base, self.image())))
            rows.append(("graph of adapted", "graph of base", lambda: Captured(self.default, self.image())))
        if self.case.group == "compiled":
            for mode in self.settings.compile_modes:
                base = f"compiled ({mode}) base"
                rows.append((base, "base", lambda m=mode: _compiled(self.base, m)))  # type: ignore[misc]
                rows.append(
                    (f"compiled ({mode}) adapted", base, lambda m=mode: _compiled(self.default, m))  # type: ignore[misc]
                )
        return rows

    def image(self) -> Tensor:
        """The pictures of the table."""
        side = self.settings.size
        return torch.randn(self.case.batch, 3, side, side).to(self.settings.device, self.dtype)

    def _authors(self) -> nn.Module:
        assert self.settings.authors is not None
        return authors_model(self.settings.authors, self.whole, seed=self.settings.seed)

    def sites(self, image: Tensor) -> dict[str, Any]:
        """Names and bytes of the features that the default's canonicalizers see, and how far it warps."""
        seen: dict[str, int] = {}
        default: Any = self.default
        hooks = [
            canonicalizer.register_forward_pre_hook(
                lambda _, given, name=name: seen.update({name: given[0].nbytes})
            )
            for name, canonicalizer in default.canonicalizers.items()
        ]
        moved = displacement(default, image)
        for hook in hooks:
            hook.remove()
        return {"sites": site_names(self.base, DEFAULT.sites), "features": seen, "moved": moved}


class Captured(nn.Module):
    """Inference of a model as one CUDA graph, replayed on the pictures that it was captured with."""

    def __init__(self, model: nn.Module, image: Tensor) -> None:
        super().__init__()
        if not image.is_cuda or model.training:
            raise LSEError("CUDA graphs are measured on a GPU and in inference only")
        self.graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.no_grad(), torch.cuda.stream(stream):
            for _ in range(3):  # libraries choose their algorithms before the capture
                model(image)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.no_grad(), torch.cuda.graph(self.graph):
            self.out, self.image = model(image), image  # the graph reads and writes their memory

    def forward(self, image: Tensor) -> Tensor:
        """What the model said of the captured pictures."""
        self.graph.replay()
        return cast(Tensor, self.out)


def _compiled(model: nn.Module, mode: str) -> nn.Module:
    compiled = torch.compile(model, mode=None if mode == "default" else mode, dynamic=False)
    return cast(nn.Module, compiled)


def family_of(model: str, size: int) -> str | None:
    """Which of the authors' converters takes a timm model, None if none does."""
    return family(plain(model, size))
