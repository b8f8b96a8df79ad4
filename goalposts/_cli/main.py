"""The command line: finds the command, and turns errors into one line and an exit code."""

from __future__ import annotations

import ast
import importlib
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.exceptions import TyperException

from goalposts import __version__
from goalposts._cli import commands, signals
from goalposts._cli.exit_codes import FAILED, INTERRUPTED, WRONG_REQUEST
from goalposts._cli.printing import err, out
from goalposts.benchmark.errors import CorruptFileError, GoalpostsError, RequestError
from goalposts.benchmark.loading import is_file
from goalposts.benchmark.plain import complaint, one_line

COMMANDS = {
    "run": "run",
    "tune": "tune",
    "certify": "certify",
    "check": "check",
    "play": "play",
    "levels": "levels",
    "evaluate": "evaluate",
    "list": "lists",
    "leaderboard": "leaderboard",
    "rates": "rates",
    "curves": "curves",
    "site": "pages",
    "publish": "publish",
    "suite": "suite",
    "agent": "agent",
    "case": "case",
    "plugin": "plugin",
}
"""Each command's module in ``goalposts._cli.commands``."""
RESUMABLE = ("run", "tune")
"""Commands that resume where they stopped."""


class LazyCommand(TyperCommand):
    """A command whose module is imported when it is called. Its help is read from the file."""

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return the first line of the help, as the list of commands shows it."""
        source = Path(commands.__path__[0], f"{COMMANDS[str(self.name)]}.py").read_text(encoding="utf-8")
        self.help = ast.get_docstring(ast.parse(source))
        return super().get_short_help_str(limit)

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        """Return the context of the command itself, which then runs it."""
        module = importlib.import_module(f"goalposts._cli.commands.{COMMANDS[str(self.name)]}")
        return typer.main.get_command(module.app).make_context(info_name, args, *rest, **extra)


app = typer.Typer(add_completion=False, rich_markup_mode=None)


def _print_version(asked: bool) -> None:
    if asked:
        out.print(f"goalposts {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """A benchmark of training mitigations for goal misgeneralization."""


def main() -> None:
    """Run the command line. A user error prints one line and sets an exit code, without a traceback."""
    warnings.filterwarnings("ignore")
    signals.interrupt_in_order()
    arguments = sys.argv[1:] or ["--help"]
    group = typer.main.get_group(app)
    group.commands = {name: LazyCommand(name) for name in COMMANDS}
    try:
        code = group.main(arguments, prog_name="goalposts", standalone_mode=False)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        path = "goalposts" if context is None else context.command_path
        code = _complain(f"{_misuse(error)} Try '{path} --help'.")
    except (RequestError, CorruptFileError) as error:
        code = _complain(str(error))
    except GoalpostsError as error:
        _complain(str(error))
        code = FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if arguments[0] in RESUMABLE:
            _complain(f"{error}. Fix that and run the same command again: it resumes where it stopped.")
            code = FAILED
        else:
            code = _complain(f"{error}. Give another path, or fix that.")
    except Exception as error:
        if not any(is_file(argument) for argument in arguments):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        _complain(f"{type(error).__name__}: {one_line(error)} ({place.filename}, line {place.lineno}). Fix that file.")
        code = FAILED
    signals.end_at_once()
    if code == INTERRUPTED:
        resumes = arguments[0] in RESUMABLE
        err.print("Interrupted." + " The same command resumes from the last checkpoints." * resumes)
    sys.exit(code if isinstance(code, int) else 0)


def _misuse(error: TyperException) -> str:
    """Return what is wrong with the arguments, as sentences. A value that breaks a rule is named."""
    from pydantic import ValidationError

    rule = error.format_message().replace("Value error, ", "").removesuffix(".")
    cause = error.__cause__
    if isinstance(cause, ValidationError) and repr(given := str(cause.errors()[0]["input"])) not in rule:
        rule += f", not {given!r}"
    return rule if rule.endswith("?") else f"{rule}."


def _complain(message: str) -> int:
    err.print(f"Error: {complaint(message)}", soft_wrap=True)
    return WRONG_REQUEST
