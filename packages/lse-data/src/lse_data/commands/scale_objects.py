"""`lse data scale-objects`: photographs whose objects have other sizes, the rest held."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from lse_core.commands.common import check_device, print_table, read_settings
from lse_core.errors import DataError
from lse_data.commands import options

__all__ = ["scale_objects"]

STAGES = ("detector", "segmenter", "inpainter")


class _Factors(click.ParamType):
    name = "factors"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        if not isinstance(value, str):
            return tuple(value)
        try:
            if ":" not in value:
                return tuple(float(text) for text in value.split(","))
            low, high, step = (float(text) for text in value.split(":"))
            count = round((high - low) / step)
            if not 0 <= count < 1000 or abs(low + count * step - high) > 1e-6 * max(1.0, high):
                raise ValueError
            return tuple(round(low + i * step, 6) for i in range(count + 1))
        except (ValueError, ZeroDivisionError, OverflowError):
            self.fail(f"{value!r} is neither a list (0.7,1,1.3) nor LOW:HIGH:STEP (0.7:1.3:0.1)", param, ctx)


class _Box(click.ParamType):
    name = "L,T,R,B"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        try:
            left, top, right, bottom = (float(text) for text in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no box: give left, top, right and bottom in pixels", param, ctx)
        return left, top, right, bottom


@click.command("scale-objects")
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.out
@click.option(
    "--factors",
    type=_Factors(),
    default="0.7:1.3:0.1",
    show_default=True,
    help="Factors of the object: LOW:HIGH:STEP, or a list with commas.",
)
@click.option(
    "--boxes",
    default="beside",
    show_default=True,
    metavar="WHERE",
    help="Where boxes or masks are: beside (NAME.xml or NAME.mask.png beside NAME.jpg), a folder of "
    "such files, or a JSON file of COCO's format.",
)
@click.option(
    "--box",
    "given",
    type=_Box(),
    multiple=True,
    metavar="L,T,R,B",
    help="A box in pixels, in every picture, in the place of --boxes; repeatable.",
)
@click.option("--detector", help="Plugin that finds boxes.  [default: files, or boxes where --box is given]")
@click.option("--segmenter", default="grabcut", show_default=True, help="Plugin that finds masks in boxes.")
@click.option("--inpainter", default="opencv", show_default=True, help="Plugin that fills in the background.")
@click.option(
    "--set",
    "pairs",
    multiple=True,
    metavar="STAGE.NAME=VALUE",
    help="A setting of a plugin, such as inpainter.method=ns; repeatable.",
)
@click.option(
    "--anchor",
    type=click.Choice(["centre", "foot"]),
    default="centre",
    show_default=True,
    help="The point of an object that stays.",
)
@click.option("--fit", is_flag=True, help="Move an object that would leave the picture, so that it does not.")
@click.option("--crop", is_flag=True, help="Let the edges cut off what leaves the picture all the same.")
@click.option(
    "--others",
    type=click.Choice(["same", "keep", "random"]),
    default="same",
    show_default=True,
    help="What objects beside the largest do: take its factor, keep their size, or take any factor.",
)
@click.option(
    "--order",
    type=click.Choice(["given", "size", "depth"]),
    default="given",
    show_default=True,
    help="What is in front: what was named last, the smaller, or what stands lower in the picture.",
)
@click.option("--soft", type=float, default=1.0, show_default=True, help="Blur of the edges in pixels.")
@click.option(
    "--margin",
    type=int,
    default=5,
    show_default=True,
    help="Pixels around an object that are filled in with its place.",
)
@click.option("--solid", is_flag=True, help="Fill the holes of masks and drop specks.")
@click.option(
    "--min-quality",
    type=float,
    default=0.0,
    show_default=True,
    help="Reject pictures of a lower quality, between 0 and 1.",
)
@click.option(
    "--format",
    type=click.Choice(["JPEG", "PNG"]),
    default="JPEG",
    show_default=True,
    help="Of the pictures; PNG loses nothing.",
)
@click.option("--jpeg-quality", type=int, default=95, show_default=True, help="From 1 to 100.")
@click.option(
    "--longest",
    type=int,
    default=1024,
    show_default=True,
    help="Pixels of the longer side to which larger pictures are reduced.",
)
@click.option(
    "--classes",
    type=click.Choice(["folders", "objects"]),
    help="What the folders of the set are named after.  [default: the folders of the pictures, if all "
    "lie in one, else the objects]",
)
@options.seed
@click.option("--jobs", type=click.IntRange(1), help="Processes.  [default: one for each core]")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="What runs the processes: this program, or Ray Data, which RAY_ADDRESS connects to a cluster.",
)
@click.option("--device", default="cpu", show_default=True, help="Where plugins run that use torch.")
@click.option("--trust", is_flag=True, help="Allow plugins to fetch the models that they are told by name.")
@options.force
@options.as_json
def scale_objects(
    pictures: tuple[Path, ...],
    out: Path,
    boxes: str,
    given: tuple[tuple[float, ...], ...],
    detector: str | None,
    pairs: tuple[str, ...],
    jobs: int | None,
    engine: str,
    device: str,
    trust: bool,
    force: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Resize the objects in photographs, one version for each factor, the background held.

    Objects are found (from boxes or masks in files, or by a detector), cut out, and put back in other sizes
    onto the picture without them, whose holes are filled in, as in section 5.3 of the paper. The folder gets
    images/CLASS/NAME_scale_0.7.JPEG, which the data set scaled_folder reads, masks/ for lse measure --masks,
    manifest.json and preview.png. A run that was interrupted goes on when it is called again.

    \b
    Example:
      lse data scale-objects photos --out scaled --boxes boxes.json --factors 0.7:1.3:0.1 --min-quality 0.5
      lse data scale-objects cat.jpg --out cat --box 20,30,300,280 --anchor foot --fit
      lse measure runs/mine scaled/images --masks scaled/masks
    """
    from lse_core.progress import Bars
    from lse_data.scaling import ScalingConfig, scale_pictures
    from lse_data.scaling.run import MANIFEST

    check_device(device)
    detector = detector or ("boxes" if given else "files")
    stage_options = _stage_options(pairs)
    if detector == "files":
        stage_options["detector"].setdefault("where", boxes)
    elif detector == "boxes":
        stage_options["detector"].setdefault("boxes", tuple(side for box in given for side in box))
    config = ScalingConfig(detector=detector, options=stage_options, **settings)
    begin = time.monotonic()
    with Bars() as bars:
        bar = bars.add("scaling objects", lines=True)
        try:
            made = scale_pictures(
                pictures,
                out,
                config,
                jobs=jobs,
                engine=engine,
                device=device,
                trust=trust,
                force=force,
                progress=bar.update,
            )
        except KeyboardInterrupt:
            click.echo("run the same command again, and it goes on from here", err=True)
            raise
    counts, seconds = made["counts"], round(time.monotonic() - begin, 1)
    rejects = [record for record in made["pictures"] if record["status"] == "rejected"]
    if as_json:
        click.echo(
            json.dumps(
                {
                    "folder": str(out),
                    "manifest": str(out / MANIFEST),
                    "made": made["made"],
                    "seconds": seconds,
                    **counts,
                    "rejects": rejects,
                }
            )
        )
    else:
        _tell(out, counts, rejects, made["made"], seconds)
    if not counts["kept"]:
        raise DataError(
            f"all {counts['photographs']} photographs were rejected, and {out} holds no picture; "
            f"the first: {rejects[0]['source']}: {rejects[0]['reason']}"
        )


def _tell(
    out: Path, counts: dict[str, Any], rejects: list[dict[str, Any]], made: int, seconds: float
) -> None:
    from lse_data.scaling.run import PREVIEW

    if rejects:
        rows = [(record["source"], record["kind"], record["reason"]) for record in rejects[:20]]
        print_table(("rejected", "kind", "why"), rows)
        if len(rejects) > len(rows):
            click.echo(f"... and {len(rejects) - len(rows)} more, see manifest.json")
    click.echo(
        f"{counts['kept']} of {counts['photographs']} photographs kept; {counts['written']} pictures and "
        f"their masks are in {out}, and {out / PREVIEW} shows some; this run worked on {made} photographs "
        f"for {seconds:.1f} seconds"
    )


def _stage_options(pairs: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {stage: {} for stage in STAGES}
    for name, value in read_settings(pairs).items():
        stage, dot, setting = name.partition(".")
        if not dot or stage not in found:
            raise click.UsageError(
                f"--set takes STAGE.NAME=VALUE, the stage being one of {', '.join(STAGES)}; got {name!r}"
            )
        found[stage][setting] = value
    return found
