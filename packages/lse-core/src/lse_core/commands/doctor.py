"""`lse doctor`: the versions, devices and problems of this installation."""

from __future__ import annotations

import json
import platform
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import click

from lse_core.errors import LSEError
from lse_core.plugins import PluginInfo, registry
from lse_core.plugins.discovery import normalize, one_line


@dataclass(frozen=True)
class Diagnosis:
    """What `lse doctor` found.

    Attributes:
        python: version of the interpreter.
        platform: operating system and machine.
        torch: version of torch, None where it cannot be imported.
        cuda: names of the CUDA devices that torch can use.
        packages: versions of the installed packages that plugins' distributions ask for, extras included.
        plugins: status of every plugin by name.
        checks: what plugins' own checks of the installation say, by name; those that fail are problems.
        problems: one line each; empty where all is well.
    """

    python: str
    platform: str
    torch: str | None
    cuda: list[str]
    packages: dict[str, str]
    plugins: dict[str, str]
    checks: dict[str, str]
    problems: list[str]


def diagnose() -> Diagnosis:
    """Examine the installation. Broken parts are listed as problems; nothing is raised."""
    found = registry().plugins()
    problems = [f"plugin {p.name!r} of {p.distribution}: {p.error}" for p in found if p.status == "failed"]
    problems.extend(registry().conflicts())
    torch_version, devices = None, []
    try:
        import torch

        torch_version = torch.__version__
        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    except Exception as error:  # a torch built for another driver fails in ways of its own
        problems.append(f"torch: {one_line(error)}")
    checks = _run_checks(problems)
    return Diagnosis(
        python=platform.python_version(),
        platform=platform.platform(),
        torch=torch_version,
        cuda=devices,
        packages=_required_packages(found),
        plugins={info.name: info.status for info in found},
        checks=checks,
        problems=problems,
    )


def _run_checks(problems: list[str]) -> dict[str, str]:
    """The lines of the checks that pass; the others are added to `problems`."""
    lines = {}
    for name, check in registry().items("check"):
        try:
            lines[name] = str(check())
        except LSEError as error:
            problems.append(str(error))
        except Exception as error:  # a check must not break the report on everything else
            problems.append(f"check {name!r}: {one_line(error)}")
    return lines


def _required_packages(found: tuple[PluginInfo, ...]) -> dict[str, str]:
    """Versions of what the plugins' distributions require and is installed, without the plugins' own."""
    own = {normalize(info.distribution) for info in found}
    versions: dict[str, str] = {}
    for distribution in own:
        required = None
        with suppress(metadata.PackageNotFoundError):  # registered in this process, or half removed
            required = metadata.requires(distribution)
        for requirement in required or []:
            name = normalize(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])
            if name not in own:
                with suppress(metadata.PackageNotFoundError):  # an extra that is not installed
                    versions[name] = metadata.version(name)
    return dict(sorted(versions.items()))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Show the versions, devices and problems of this installation.

    The exit status is 1 if there is a problem: torch cannot be imported, a plugin or a plugin's check of the
    installation failed, or two plugins provide the same name.

    \b
    Example:
      lse doctor
      lse doctor --json
    """
    diagnosis = diagnose()
    if as_json:
        click.echo(json.dumps(asdict(diagnosis), indent=2))
    else:
        _print(diagnosis)
    ctx.exit(1 if diagnosis.problems else 0)


def _print(diagnosis: Diagnosis) -> None:
    rows: list[tuple[str, Any]] = [
        ("python", diagnosis.python),
        ("platform", diagnosis.platform),
        ("torch", diagnosis.torch or "cannot be imported"),
        ("cuda", ", ".join(diagnosis.cuda) or "no device: everything runs on CPU"),
        *((name, version) for name, version in diagnosis.packages.items() if name != "torch"),
        *diagnosis.checks.items(),
        ("plugins", ", ".join(f"{name} {status}" for name, status in diagnosis.plugins.items())),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value}")
    for problem in diagnosis.problems:
        click.echo(f"problem: {problem}")
    if not diagnosis.problems:
        click.echo("no problems found")
