"""``python -m trg_torchdistill``: finds the sub-command, and turns a user's mistake into one message."""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from trg_torchdistill._version import __version__
from trg_torchdistill.cli.runtime.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED
from trg_torchdistill.errors import TRGError
from trg_torchdistill_cli import parsers


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a sub-command and returns its exit code.

    Args:
        arguments: Words of the command line, None for the process's own.

    Returns:
        0 when done, 1 when the training failed, 2 for a mistake in the YAML or the command line, 130 after Ctrl-C.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    args = parser_of(words).parse_args(words)
    args.words = words
    try:
        code: int = _room(args.command).run(args)
    except TRGError as error:
        hint = ''
        if args.traceback:
            traceback.print_exception(error)
        elif not isinstance(error.__cause__, (TRGError, type(None))):
            hint = ' (--traceback shows where)'
        print(f'error: {error}{hint}', file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        traceback.print_exception(error)
        print(
            f'error: {type(error).__name__}: {error}; this is a fault of trg_torchdistill, not of your YAML: please '
            'report it with the lines above',
            file=sys.stderr,
        )
        return EXIT_FAILED
    return code


def _room(command: str) -> Any:
    return importlib.import_module(f'trg_torchdistill.cli.{command}.command')


def parser_of(words: list[str]) -> argparse.ArgumentParser:
    """Returns the parser; only the sub-command that was asked for is imported and adds its arguments."""
    parser, commands = parsers(__version__)
    for name, command in commands.items():
        if words[:1] == [name]:
            _room(name).add_arguments(command)
        command.add_argument('--traceback', action='store_true', help='show where an error was raised')
    return parser
