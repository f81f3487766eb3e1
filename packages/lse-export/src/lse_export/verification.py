"""Comparing an exported file with its model: on real images and edge cases, for every output."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from torch import Tensor, nn

from lse_core.errors import LSEError
from lse_export.errors import ExportError, VerificationError
from lse_export.gate.graph import load_proto
from lse_export.metadata import FileFacts, facts_of, shown
from lse_export.preprocess import Prepare
from lse_export.quantize import KERNEL_TOLERANCE, is_quantized, kernel_difference, overflowing
from lse_export.runtime import open_session, run
from lse_export.unroll import (
    EXTRAS,
    Unrolled,
    check_example,
    evaluating,
    extent,
    recording,
    residual_traces,
    tolerance_of,
    with_steps,
)

__all__ = ["Comparison", "Verification", "edge_inputs", "verify"]

Verdict = Literal["equal", "amplified", "different"]

# two units in the last place of float32: the least that another order of summation may change
ROUNDING = 2.0**-22


@dataclass(frozen=True)
class Comparison:
    """One output on one kind of input at one batch size.

    Attributes:
        output: its name in the file.
        inputs: "real", "constant", "extreme" or "random".
        batch_size: images a call.
        max_abs_diff: largest absolute difference.
        mean_abs_diff: mean absolute difference.
        relative: `max_abs_diff` over the range (largest minus least value) of the model's own output.
        argmax_agreement: share of images, or of pixels, with the same largest entry along axis 1; 1.0 for
            outputs that are no class scores (B, C) or (B, C, H, W).
        verdict: "equal" within the tolerance; "amplified" where the model itself moves as far when
            its input changes by rounding only, so that no export could agree; else "different".
    """

    output: str
    inputs: str
    batch_size: int
    max_abs_diff: float
    mean_abs_diff: float
    relative: float
    argmax_agreement: float
    verdict: Verdict


def _over_real(name: str, worst: Callable[[Iterator[float]], float], text: str) -> property:
    """The worst number of this name on real inputs."""
    return property(lambda self: worst(getattr(row, name) for row in self.real), doc=text)


@dataclass(frozen=True)
class Verification:
    """What `verify` found. Plain numbers are over the real inputs, all outputs and batch sizes.

    Attributes:
        path: the file.
        rows: every comparison made, edge inputs included.
        batch_sizes: batch sizes compared.
        tolerance: largest `relative` that counts as equal.
        providers: execution providers of the session, the first being what ran.
        steps: solver steps compared, by site.
        residuals: largest residual over the real inputs at every step, by site.
        overflowing: layers whose int8 weights overflow on CPUs without VNNI, see `lse_export.quantize`.
        kernels: largest difference on real inputs between ONNX Runtime's 8-bit kernels on this CPU and those
            that cannot overflow, of the output's range; 0.0 for a file that has no 8-bit tensors or, by what
            is known of it, none that overflow, and where another provider than the CPU was asked for.
        quantized: whether the file has 8-bit tensors. Their ranges were measured on real images, and edge
            inputs lie outside of them: then the latter are reported, but only real inputs decide.
    """

    path: Path
    rows: list[Comparison]
    batch_sizes: tuple[int, ...]
    tolerance: float
    providers: list[str]
    steps: dict[str, int]
    residuals: dict[str, list[float]]
    overflowing: list[str] = field(default_factory=list)
    kernels: float = 0.0
    quantized: bool = False

    @property
    def real(self) -> list[Comparison]:
        """The comparisons on real inputs."""
        return [row for row in self.rows if row.inputs == "real"]

    max_abs_diff = _over_real("max_abs_diff", max, "Largest absolute difference on real inputs.")
    mean_abs_diff = _over_real("mean_abs_diff", max, "Largest of the mean absolute differences there.")
    relative = _over_real("relative", max, "Largest difference there, of the range of the output it is in.")
    argmax_agreement = _over_real("argmax_agreement", min, "Least share of real images of the same answer.")

    @property
    def ok(self) -> bool:
        """Whether no comparison that counts differs, and 8-bit kernels are exact on this CPU."""
        return self.kernels <= KERNEL_TOLERANCE and all(row.verdict != "different" for row in self.counting)

    @property
    def counting(self) -> list[Comparison]:
        """The comparisons that decide: all, or those on real inputs where the file is `quantized`."""
        return self.real if self.quantized else self.rows

    @property
    def not_contracting(self) -> dict[str, list[float]]:
        """Residuals of the sites where they do not at least halve from the first step to the last."""
        return {
            site: trace
            for site, trace in self.residuals.items()
            if len(trace) > 1 and not trace[-1] <= 0.5 * trace[0] and not trace[-1] < 1e-6
        }

    def summary(self) -> str:
        """One line: the verdict, the numbers, and what the residuals say about it."""
        worst = max(self.counting, key=lambda row: row.relative)
        text = (
            f"{self.path}: largest difference {worst.relative:.2g} of the range of {worst.output!r} "
            f"({worst.inputs} inputs, batch size {worst.batch_size}; tolerance {self.tolerance:g})"
        )
        if self.kernels > KERNEL_TOLERANCE:
            text += (
                f"; 8-bit sums overflow on this CPU and move outputs by {self.kernels:.2g} of their range: "
                "quantize with 7-bit weights, or set ONNX Runtime's session.x64quantprecision to 1"
            )
        elif self.overflowing:
            text += (
                f"; 8-bit sums of {len(self.overflowing)} layers overflow on CPUs without VNNI instructions "
                f"({self.overflowing[0]!r} first): quantize with 7-bit weights"
            )
        if any(row.verdict == "different" for row in self.counting):
            text += "; the file does not compute what the model computes"
        elif any(row.verdict == "amplified" for row in self.counting):
            text += "; the model moves as far by rounding of its input alone, so the export is not to blame"
        outside = [row for row in self.rows if row.verdict == "different" and row.inputs != "real"]
        if self.quantized and outside:
            largest, kinds = max(row.relative for row in outside), {row.inputs: 0 for row in outside}
            text += (
                f"; on {', '.join(kinds)} inputs it differs by up to {largest:.2g} of the range, which does "
                "not count: its 8-bit ranges were measured on real images"
            )
        if worst.verdict != "equal" and self.not_contracting:
            sites = ", ".join(
                f"{s!r} ({t[0]:.2g} to {t[-1]:.2g} in {len(t)} steps)"
                for s, t in self.not_contracting.items()
            )
            text += f"; the update does not contract at {sites}, which amplifies rounding"
        return text

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = ("ok", "max_abs_diff", "mean_abs_diff", "relative", "argmax_agreement")
        return {
            **vars(self),
            "path": str(self.path),
            "batch_sizes": list(self.batch_sizes),
            "rows": [vars(row) for row in self.rows],
            **{name: getattr(self, name) for name in found},
        }


def verify(
    path: str | Path,
    model: nn.Module,
    inputs: Tensor,
    *,
    batch_sizes: Sequence[int] = (1, 5),
    tolerance: float | None = None,
    provider: str = "cpu",
    edges: bool = True,
    throw: bool = True,
) -> Verification:
    """Compare an exported file with the model it came from.

    The model runs in eval mode with as many solver steps as the file says it was unrolled with.

    Args:
        path: the ONNX file.
        model: the model, left as it was.
        inputs: (n, C, H, W) real images; every one is compared at every batch size. Where the file
            prepares pictures itself, what it takes: (n, H, W, C) or (n, C, H, W) uint8.
        batch_sizes: how many images a call; the last batch is filled up from the start.
        tolerance: largest difference, relative to the output's range, that counts as equal; None takes
            that of the file's precision: 1e-4 for float32, 5e-3 for float16, 0.25 for int8.
        provider: ONNX Runtime's execution provider, see `lse_export.runtime.PROVIDERS`.
        edges: compare on `edge_inputs` too.
        throw: raise where the file differs from the model; off, look at `Verification.ok`.

    Raises:
        VerificationError: the file differs from the model and `throw` is on.
        ExportError: the file cannot be run, takes no such batch, or has other outputs than the model.
        ShapeError, DTypeError, NotFiniteError: `inputs` are no finite images.
    """
    path, sizes = Path(path), tuple(batch_sizes)
    if not sizes or min(sizes) < 1:
        raise LSEError(f"batch sizes must be whole numbers of at least 1; got {list(sizes)}")
    session = open_session(path, provider)
    proto = load_proto(path)
    facts = facts_of(path, proto)
    steps = facts.steps()
    precision = facts.metadata.get("lse.precision", "float32")
    if tolerance is None:
        tolerance = tolerance_of(precision)
    raw = facts.raw_pictures()
    prepare = Prepare(raw) if raw is not None else None
    whole = model if prepare is None else nn.Sequential(prepare, model)
    with with_steps(model, steps or None), evaluating(model):
        if prepare is None:
            prepared = inputs = check_example(model, inputs)
        else:
            prepared = prepare(inputs)
        groups = [("real", size, _batches(inputs, size)) for size in sizes]
        if edges:
            groups += [(kind, sizes[-1], [batch]) for kind, batch in edge_inputs(inputs, sizes[-1]).items()]
        rows: list[Comparison] = []
        for kind, size, batches in groups:
            _fits(facts, batches[0])
            with recording(model) as record:
                rows += _compare(session, whole, record, kind, size, batches, tolerance)
        eight_bits = is_quantized(proto)
        layers = overflowing(onnx.load_model(path)) if eight_bits else []
        kernels = 0.0
        # of our own files all weights were looked at; of others some may be hidden
        if provider == "cpu" and (layers or (eight_bits and precision != "int8")):
            kernels = kernel_difference(path, [batch for size in sizes for batch in _batches(inputs, size)])
        traces = residual_traces(model, prepared)
    report = Verification(
        path, rows, sizes, tolerance, list(session.get_providers()), steps, traces, layers, kernels,
        eight_bits,
    )  # fmt: skip
    if throw and not report.ok:
        raise VerificationError(report.summary())
    return report


def edge_inputs(like: Tensor, batch: int) -> dict[str, Tensor]:
    """Inputs at the edge of what a model will see, by kind, (batch, C, H, W) each.

    "constant": flat images between the least and the largest value of `like`; "extreme": random signs
    at four times its largest magnitude; "random": uniform noise over its range. Of raw pictures (uint8):
    all levels, random black and white, and noise.
    """
    whole = like.dtype == torch.uint8
    low, high = (0.0, 255.0) if whole else (float(like.min()), float(like.max()))
    peak = 4.0 * max(abs(low), abs(high), 1e-3)
    shape = (batch, *like.shape[1:])
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    levels = torch.linspace(low, high, batch).view(-1, 1, 1, 1)
    edges = {
        "constant": levels.expand(shape).contiguous(),
        "extreme": torch.where(noise < 0.5, *((low, high) if whole else (-peak, peak))),
        "random": low + (high - low) * noise,
    }
    return {kind: (image.round() if whole else image).to(like) for kind, image in edges.items()}


def _batches(inputs: Tensor, size: int) -> list[Tensor]:
    count = -(-len(inputs) // size)
    index = torch.arange(count * size, device=inputs.device) % len(inputs)
    return list(inputs[index].split(size))


def _fits(facts: FileFacts, batch: Tensor) -> None:
    for axis, (size, have) in enumerate(zip(facts.shape, batch.shape, strict=False)):
        if size not in (None, have):
            what = "batch size" if axis == 0 else "image shape"
            takes, given = shown(facts.shape), tuple(batch.shape)
            raise ExportError(f"the file's {what} is fixed: it takes {takes}, not {given}")
    for side, have in zip(("height", "width"), batch.shape[2:], strict=False):
        least, most = facts.limits(side)
        if not least <= have <= (most or have):
            upto = f"to {most}" if most else "on"
            raise ExportError(f"the file takes a {side} from {least} {upto}, not {have}")


def _compare(
    session: Any,
    model: nn.Module,
    record: dict[str, Any],
    kind: str,
    size: int,
    batches: list[Tensor],
    tolerance: float,
) -> Iterator[Comparison]:
    """Every output over batches of one kind and size."""
    found = [run(session, batch) for batch in batches]
    extras = any(name.startswith(EXTRAS) for name in found[0])
    unrolled = Unrolled(model, record if extras else None)
    wanted = [[tensor.cpu() for tensor in unrolled(batch)] for batch in batches]
    if len(wanted[0]) != len(found[0]):
        count = f"the file has {len(found[0])} outputs, the model {len(wanted[0])}"
        raise ExportError(f"{count}: it was not made from this model")
    for index, name in enumerate(found[0]):
        expected = torch.cat([outputs[index] for outputs in wanted]).double()
        got = torch.cat([outputs[name] for outputs in found]).double()
        if expected.shape != got.shape:
            raise ExportError(
                f"output {name!r} is {tuple(found[0][name].shape)} in the file and "
                f"{tuple(wanted[0][index].shape)} in the model: it was not made from this model"
            )
        diff, span = _difference(expected, got), extent(name, expected)
        largest = float(diff.max())
        verdict: Verdict = "equal" if largest <= tolerance * span else "different"
        agreement = 1.0
        if not name.startswith(EXTRAS):
            if verdict == "different":
                shaken = max(
                    _shake(model, batch, index, outputs[index])
                    for batch, outputs in zip(batches, wanted, strict=True)
                )
                # the same order of magnitude: the export moved no further than rounding alone can
                if tolerance * span < 8.0 * shaken and largest <= 32.0 * shaken:
                    verdict = "amplified"
            if expected.ndim in (2, 4):
                agreement = float((expected.argmax(1) == got.argmax(1)).double().mean())
        mean = float(diff.mean())
        yield Comparison(name, kind, size, largest, mean, largest / span, agreement, verdict)


def _difference(expected: Tensor, got: Tensor) -> Tensor:
    """|expected - got|; where both are NaN they do not differ, where one is the difference is infinite."""
    diff = (expected - got).abs()
    same = (expected == got) | (expected.isnan() & got.isnan())
    return torch.where(same, 0.0, diff.nan_to_num(nan=torch.inf))


def _shake(model: nn.Module, image: Tensor, index: int, expected: Tensor) -> float:
    """How far output number `index` of the model itself moves when its input changes by rounding only."""

    def moved(model: nn.Module, image: Tensor) -> float:
        return float(_difference(expected.double(), Unrolled(model)(image)[index].cpu().double()).max())

    if not image.is_floating_point():
        # levels of raw pictures are whole, but resizing may round to either of two: each is a sum of dozens
        prepare, inner = model.children()
        others: list[Any] = [copy.copy(prepare), copy.copy(prepare)]
        for other, sign in zip(others, (1.0, -1.0), strict=True):
            other.offset += sign * 8.0 * ROUNDING * 255.0
        return max(moved(nn.Sequential(other, inner), image) for other in others)
    generator = torch.Generator().manual_seed(0)
    noise = [torch.rand(image.shape, generator=generator) * 2 - 1 for _ in range(2)]
    # pixels on their own, and all together: an average over the image hides the former
    changes = [*noise, torch.ones(()), -torch.ones(())]
    size = ROUNDING * float(image.abs().max())
    return max(moved(model, image + size * change.to(image)) for change in changes)
