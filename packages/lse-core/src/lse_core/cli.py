"""The `lse` command: its subcommands come from plugins, its errors are one line on stderr."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from lse_core.errors import LSEError, LSEWarning, UnknownNameError
from lse_core.plugins import registry


class LSEGroup(click.Group):
    """A click group whose subcommands come from the registry and are loaded only when needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands of installed packages; those with a space in it belong to other groups."""
        return [name for name in registry().names("command") if " " not in name]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Return a command; `UsageError` says which package to install or which name comes closest."""
        try:
            command: click.Command = registry().get("command", cmd_name)
        except UnknownNameError as error:
            text = _missing_home(cmd_name) or str(error)
            raise click.UsageError(text, ctx) from error
        return command

    def invoke(self, ctx: click.Context) -> None:
        """Run the subcommand; with --debug print the traceback of what it raises."""
        try:
            super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _Interrupted(error) from error
        except (click.exceptions.Exit, click.Abort, click.UsageError):
            raise
        except Exception:
            if ctx.params.get("debug"):
                traceback.print_exc()
            raise

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line and exit.

        Exit status: 0; 1 after an error; 2 after a usage error; 130 after an interrupt and 143 after SIGTERM,
        which is an interrupt like Ctrl-C here, so that nothing half written is left behind. With
        `standalone_mode=False` exceptions reach the caller, as click has it.
        """
        prog_name = prog_name or "lse"
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        with warnings.catch_warnings(), _terminable():
            warnings.showwarning = _show_warning
            try:
                status = super().main(args, prog_name, complete_var, False, **extra)
            except click.exceptions.NoArgsIsHelpError as error:
                error.show()
                sys.exit(2)
            except click.UsageError as error:
                where = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
                _fail(error.format_message() + where, 2)
            except click.ClickException as error:
                _fail(error.format_message(), error.exit_code)
            except click.Abort as error:
                click.echo("interrupted", err=True)
                sys.exit(error.status if isinstance(error, _Interrupted) else 130)
            except (LSEError, OSError) as error:
                _fail(str(error), 1)
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                _fail(f"unexpected {text}; `lse --debug ...` shows where, please report it", 1)
        # click returns the code of an Exit, and `invoke` returns None
        sys.exit(status or 0)


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


class _Interrupted(click.Abort):
    """A command was interrupted; `status` says how the program is to end."""

    def __init__(self, error: KeyboardInterrupt) -> None:
        super().__init__()
        self.status = 143 if isinstance(error, _Terminated) else 130


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM raises an interrupt while the block runs, as Ctrl-C does, unless somebody else takes it.

    Python drops an exception in a finalizer or in a callback of the garbage collector, and a compiled library
    that is being imported may abort at one. A signal that hits either comes again a moment later.
    """

    def again(number: int) -> None:
        waiting.append(threading.Timer(0.05, os.kill, (os.getpid(), number)))
        waiting[-1].daemon = True
        waiting[-1].start()

    def stop(number: int, frame: FrameType | None) -> None:
        if frame is None or not frame.f_code.co_filename.startswith("<frozen importlib"):
            raise _Terminated if number == signal.SIGTERM else KeyboardInterrupt
        again(number)

    def dropped(what: Any) -> None:
        if not issubclass(what.exc_type, KeyboardInterrupt):
            hook(what)
        else:
            again(signal.SIGTERM if issubclass(what.exc_type, _Terminated) else signal.SIGINT)

    alone = threading.current_thread() is not threading.main_thread()  # where no signal can be caught
    if alone or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    waiting: list[threading.Timer] = []
    hook, sys.unraisablehook = sys.unraisablehook, dropped
    before: dict[int, Any] = {signal.SIGTERM: signal.SIG_DFL}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.default_int_handler
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for timer in waiting:  # the command is done
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


def _missing_home(name: str) -> str:
    """Say which absent package a command belongs to, or the command that a misspelt name is closest to."""
    import tomllib

    listed = tomllib.loads(Path(__file__).with_name("commands.toml").read_text(encoding="utf-8"))
    homes = {command: home for home, commands in listed.items() for command in commands}
    close = get_close_matches(name, [*registry().names("command"), *homes], n=1, cutoff=0.6)
    home = homes.get(close[0]) if close else None
    if home is None or find_spec(home.replace("-", "_")) is not None:
        return ""
    if close[0] == name:
        return f"command {name!r} is part of {home}, which is not installed: pip install {home}"
    return (
        f"unknown command {name!r}. Did you mean {close[0]!r}? It is part of {home}, "
        f"which is not installed: pip install {home}"
    )


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Print a warning of ours as one line; others keep their place in the source."""
    if issubclass(category, LSEWarning):
        click.echo(f"warning: {message}", err=True)
    else:
        click.echo(warnings.formatwarning(message, category, *where[:2]).rstrip(), err=True)


def _fail(text: str, status: int) -> NoReturn:
    click.echo(f"error: {' '.join(text.split())}", err=True)
    sys.exit(status)


@click.group(
    cls=LSEGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True},
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="lse-core", prog_name="lse", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context, debug: bool) -> None:
    """Make vision models consistent under local scaling.

    Commands come from the installed packages; `lse plugins` shows which.

    \b
    Example:
      lse plugins
      lse --debug doctor
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
