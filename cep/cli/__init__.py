"""The command ``cep``.

Each command is a module of this package with a function of the same name,
whose parameters are typer's options and whose docstring is its help. A module
is imported only when its command is called: ``cep --help`` reads the table
below and loads nothing else. A command that has commands itself is a typer ``app``.

Exit codes: 0 done; 1 something outside failed (no server, no space); 2 a
mistake in the command line, a file or a rule; 130 interrupted. Each failure is
one line on stderr. A traceback is shown for bugs, and for all errors when
``CEP_DEBUG=1``.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from cep.errors import CepError, UsageError, near_miss

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

COMMANDS = {
    "demo": "Run the whole thing on the bundled sample and show what it finds.",
    "run": "Run a pipeline: read streams, match rules, publish what they find.",
    "quarantine": "See, retry, export and remove what a pipeline has given up on.",
    "resume": "Let a rule that has stopped go on.",
    "archive": "Keep streams as Parquet files; see, check them, and trim the streams.",
    "restore": "Write archived entries back to streams, with the same entry ids.",
    "replay": "Publish a file, or the bundled sample, as events.",
    "report": "Write a page about streams and what rules find in them.",
    "doctor": "Look at a server and its pipelines, and say what to do.",
    "version": "Print the versions of cep and of what it runs on.",
}

_HELP = """\
Usage: cep COMMAND [OPTIONS]

Complex event processing over Redis Streams.

Commands:
{commands}

Options:
  --help     Show this message and exit.
  --version  Show the versions and exit.

Example:
  cep demo

`cep COMMAND --help` explains a command and shows an example of it.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(words)
    except CepError as error:
        if os.environ.get("CEP_DEBUG") == "1":
            raise
        return _fail(str(error), code=2 if is_mistake(error) else 1)
    except KeyboardInterrupt:
        return _fail("interrupted", code=130)
    except BrokenPipeError:
        # The reader of our output went away (`cep ... | head`). Python would
        # complain when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _dispatch(words: list[str]) -> int:
    match words:
        case [] | ["--help" | "-h" | "help"]:
            print(_help(), end="")
            return 0
        case ["--version"]:
            words = ["version"]
        case [name, *_] if name not in COMMANDS:
            what = "option" if name.startswith("-") else "command"
            near = near_miss(name, COMMANDS)
            hint = f"Did you mean `cep {near[0]}`?" if near else "See `cep --help`."
            raise UsageError(f"No such {what}: {name!r}.", hint)
        case _:
            pass
    return _run_command(words[0], words[1:])


def _run_command(name: str, arguments: list[str]) -> int:
    import typer

    # Plain help text: rich would double the start-up time.
    module = import_module(f"cep.cli.{name}")
    app = getattr(module, "app", None)  # of a command that has commands
    if app is None:
        app = typer.Typer(
            add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
        )
        app.command(name)(getattr(module, name))
    try:
        code = app(arguments, prog_name=f"cep {name}", standalone_mode=False)
    except typer.TyperException as error:
        problem = error.format_message().rstrip(".")
        raise UsageError(f"{problem}.", f"See `cep {name} --help`.") from error
    except typer.Abort:
        return _fail("interrupted", code=130)
    return code if isinstance(code, int) else 0


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = [f"  {name:{width}}  {what}" for name, what in COMMANDS.items()]
    return _HELP.format(commands="\n".join(rows))


def is_mistake(error: CepError) -> bool:
    """Whether an error comes of what was asked for, not of the world."""
    return isinstance(error, (ValueError, LookupError))


def _fail(text: str, *, code: int) -> int:
    print("error:", " ".join(text.split()), file=sys.stderr)
    return code
