"""The parts, the most valuable first: which script, with what, and how long at most."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["IMPORTED", "NAMES", "Part", "parts"]

ROOT = Path(__file__).parents[2]
GPU, BENCH = ROOT / "tools" / "gpu", ROOT / "tools" / "bench"
IMPORTED = ("timm", "lse_dec", "lse_dec.canonicalizers", "lse_dec.backbones", "torch.profiler", "pytest")
"""Imported once for all parts."""

NAMES = (
    "machine", "tests", "overhead", "training", "graphs", "warps", "cell", "runtimes", "authors",
    "compiled", "compiler-tests", "tensorrt", "growth",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A script as a process.

    Attributes:
        name: one of `NAMES`, also its folder for JSON.
        title: what it is, for people.
        script: prints Markdown.
        arguments: for it.
        limit: seconds, of which it should need half.
        needs: modules, one of which must be here.
        environment: variables for it.
    """

    name: str
    title: str
    script: Path
    arguments: tuple[str, ...]
    limit: float
    needs: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """As a person would give it, without folders of this machine."""
        shown = [Path(a).name if Path(a).is_absolute() else a for a in self.arguments]
        return shlex.join(["python", self.script.relative_to(ROOT).as_posix(), *shown])


def parts(options: argparse.Namespace, work: Path) -> Iterator[Part]:
    """What `options` ask for, see `check.parse`; JSON goes to folders in `work`."""
    for part in _tiny(work) if options.tiny else _whole(options, work):
        if not options.only or part.name in options.only:
            yield part


def _whole(options: argparse.Namespace, work: Path) -> Iterator[Part]:
    device, on = options.device, ("--device", options.device)
    tested = {"LSE_GPU_TESTS_ON": device}

    def tests(name: str, title: str, limit: float, *chosen: str, needs: tuple[str, ...] = ()) -> Part:
        return Part(name, title, GPU / "marked.py", (str(work / name), *chosen), limit, needs, tested)

    def costs(name: str, title: str, limit: float, *chosen: str) -> Part:
        common = (*on, "--work", str(work / name), "--seconds", "1")
        return Part(name, title, BENCH / "overhead.py", (*common, *chosen), limit)

    exact = ("--precision", "fp32", "tf32", "bf16")
    models = ("--models", "vit_small_patch16_224", "swin_tiny_patch4_window7_224")
    vit, inference = models[:2], ("--modes", "inference")
    yield Part("machine", "the machine", GPU / "machine.py", (str(work / "machine"),), 120)
    others = "not compiled and not tensorrt and not rtx"
    yield tests("tests", "tests against the CPU", 150, "-k", others)
    yield costs("overhead", "what a DEC adds", 150, "--groups", "models", *models, *inference, *exact,
                "--batches", "1", "8", "128")  # fmt: skip
    yield costs("training", "what a DEC adds to a training step", 75, "--groups", "models", *models,
                "--modes", "training", "--precision", "fp32", "bf16", "--batches", "10")  # fmt: skip
    yield costs("graphs", "in CUDA graphs", 75, "--groups", "graphs", *vit, *inference,
                "--precision", "fp32", "bf16", "--batches", "1", "8", "128")  # fmt: skip
    yield Part("warps", "warps against grid_sample", BENCH / "warps.py", (*on, "--budget", "0.15"), 60)
    yield Part("cell", "one run of a recipe", GPU / "cell.py", (str(work / "cell"), *on), 90)
    yield Part("runtimes", "exported files", GPU / "runtimes.py", (str(work / "runtimes"), *on), 60)
    if options.authors:
        yield costs("authors", "against the authors' code", 90, "--groups", "authors", "--authors",
                    str(options.authors.resolve()), *models, *inference, *exact,
                    "--batches", "128")  # fmt: skip
    yield costs("compiled", "compiled by torch.compile", 150, "--groups", "compiled", "--compile", "default",
                "reduce-overhead", *vit, *inference, "--precision", "bf16", "--batches", "8")  # fmt: skip
    yield tests("compiler-tests", "tests of compiled models", 120, "-k", "compiled")
    yield tests(
        "tensorrt", "engines of TensorRT", 150, "-k", "tensorrt or rtx", needs=("tensorrt", "tensorrt_rtx")
    )
    growth = (*on, "--batch", "128", "--seconds", "2")
    yield Part("growth", "how the cost grows", BENCH / "growth.py", growth, 90)


def _tiny(work: Path) -> Iterator[Part]:
    """The same scripts as `_whole`, on the CPU, with the least that each can do."""
    least = {
        "tests": ("-k", "separable-residual-anderson-i or laws or travels or ddp"),
        "overhead": ("--models", "test_vit", "--size", "64", "--batches", "1", "--precision", "fp32", "bf16"),
        "warps": ("--budget", "0", "--batches", "1", "--maps", "384x14x14"),
        "cell": ("--tiny",), "runtimes": ("--tiny",),
        "growth": ("--sweeps", "channels", "--rounds", "3", "--seconds", "0", "--batch", "1"),
    }  # fmt: skip
    for kind in ("training", "graphs", "compiled"):
        least[kind] = (*least["overhead"][:-3], "--precision", "fp32")
    whole = argparse.Namespace(device="cpu", authors=None)
    for part in _whole(whole, work):
        if part.name in ("compiler-tests", "tensorrt"):  # have no counterpart on a CPU
            continue
        arguments = part.arguments
        if part.script.name == "overhead.py":
            # the last of two values counts
            arguments = (*arguments, *least[part.name], "--rounds", "3", "--seconds", "0.01")
        elif part.name == "tests":
            arguments = (arguments[0], *least["tests"])
        elif part.name != "machine":
            arguments = (*arguments, *least[part.name])
        # torch.compile hands models back as they are
        environment = {**part.environment, "TORCHDYNAMO_DISABLE": "1"}
        yield Part(part.name, part.title, part.script, arguments, part.limit, part.needs, environment)
