"""The command ``trg-torchdistill``, outside the package, whose import takes torch's seconds.

``--help``, ``--version`` and a wrong command are answered at once; only a command imports the package.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Sequence

COMMANDS = {
    'train': 'train and test the models of any torchdistill image-classification YAML',
    'eval': 'test a trained student class by class, and compare it with its teacher',
    'add': 'write TRG into the YAML of a distillation that you have',
    'check': 'say whether a YAML will train, and what its steps cost, on random data',
    'plot': 'draw curves of runs, or token graph, context maps and t-SNE of the models of a YAML',
    'demo': 'compare the student alone, with KD and with TRG on handwritten digits',
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code; arguments and codes are those of ``trg_torchdistill.cli.main``."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if not words or words[0] not in COMMANDS:
        parsers(importlib.metadata.version('trg_torchdistill'))[0].parse_args(words)
    from trg_torchdistill.cli.main import main as run

    return run(words)


def parsers(version: str) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Returns the parser of the command line, and that of each command, without arguments yet."""
    parser = argparse.ArgumentParser(prog='trg-torchdistill', description='Knowledge distillation with torchdistill.')
    parser.add_argument('--version', action='version', version=f'%(prog)s {version}')
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    found = {
        name: commands.add_parser(name, help=summary, description=f'{summary[0].upper()}{summary[1:]}.')
        for name, summary in COMMANDS.items()
    }
    return parser, found
