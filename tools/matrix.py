"""Runs the test suite in a fresh virtual environment for each combination of Python, torch and torchdistill.

    python tools/matrix.py --list
    python tools/matrix.py --folder /tmp/matrix --only py3.11 --only torchdistill1.1.4

Only committed files are tested: each environment gets `git archive HEAD`. An environment takes about 7 GB with the CUDA
builds of PyPI and is deleted after its run; its log stays in the folder, and one line of JSON in `results.jsonl`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 3600
PYTHONS = ('3.10', '3.11', '3.12', '3.13')
# torchdistill -> the oldest torch that it and `setup.cfg` allow, and the newest of PyPI, with what fits to them:
# transformers 5 wants torch 2.6 or newer.
TORCHES = {
    '1.1.4': (('torch==2.5.1', 'torchvision==0.20.1', 'transformers<5'), ('torch', 'torchvision')),
    '1.1.5': (('torch==2.12.*', 'torchvision'), ('torch', 'torchvision')),
}
VERSIONS = (
    'import torch, torchvision, platform; print(platform.python_version(), torch.__version__, torchvision.__version__)'
)


@dataclass(frozen=True)
class Combination:
    """One environment: an interpreter, a torchdistill and the requirements for torch."""

    python: str
    interpreter: Path
    torchdistill: str
    torch: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the environment and its log."""
        version = self.torch[0].partition('==')[2].replace('*', 'x') or '-newest'
        return f'py{self.python}-torchdistill{self.torchdistill}-torch{version}'


def interpreters() -> dict[str, Path]:
    """Returns the interpreters found on PATH and in pyenv, by version."""
    found = {}
    for version in PYTHONS:
        candidates = [shutil.which(f'python{version}'), *map(str, _pyenv(version))]
        for candidate in filter(None, candidates):
            if subprocess.run([candidate, '-c', 'import ensurepip, ssl, venv'], capture_output=True).returncode == 0:
                found[version] = Path(candidate)
                break
    return found


def _pyenv(version: str) -> list[Path]:
    folder = Path(os.environ.get('PYENV_ROOT', Path.home() / '.pyenv')) / 'versions'
    return sorted(folder.glob(f'{version}.*/bin/python'), reverse=True)


def combinations(only: list[str]) -> Iterator[Combination]:
    """Yields every combination whose name holds all the given words."""
    for version, interpreter in interpreters().items():
        for host, torches in TORCHES.items():
            for torch in torches:
                combination = Combination(version, interpreter, host, torch)
                if all(word in combination.name for word in only):
                    yield combination


def run(combination: Combination, folder: Path) -> dict[str, str]:
    """Makes the environment, runs the tests in it, deletes it, and returns the row of the table."""
    work = folder / combination.name
    log = folder / f'{combination.name}.log'
    shutil.rmtree(work, ignore_errors=True)
    (work / 'source').mkdir(parents=True)
    python = str(work / 'venv' / 'bin' / 'python')
    pip = [python, '-m', 'pip', 'install', '--quiet', '--no-cache-dir']
    commit = subprocess.run(
        ['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True, text=True, check=True
    )
    row = {'date': datetime.date.today().isoformat(), 'commit': commit.stdout.strip()}
    row['torchdistill'] = combination.torchdistill
    try:
        with log.open('w') as stream, tempfile.TemporaryFile() as archive:
            steps = [
                [str(combination.interpreter), '-m', 'venv', str(work / 'venv')],
                [*pip, *combination.torch, f'torchdistill=={combination.torchdistill}', 'setuptools>=77'],
                [*pip, '--editable', f'{work / "source"}[test,hub]', f'torchdistill=={combination.torchdistill}'],
            ]
            subprocess.run(['git', 'archive', 'HEAD'], cwd=ROOT, stdout=archive, check=True)
            archive.seek(0)
            subprocess.run(['tar', '-x', '-C', str(work / 'source')], stdin=archive, check=True)
            for step in steps:
                if subprocess.run(step, stdout=stream, stderr=subprocess.STDOUT).returncode != 0:
                    return row | {'python': combination.python, 'result': f'no environment, see {log.name}'}
            row |= dict(zip(('python', 'torch', 'torchvision'), _words(python), strict=True))
            tests = [python, '-m', 'pytest', '-q', '-p', 'no:cacheprovider']
            environment = {**os.environ, 'PYTHONPATH': ''}
            try:
                subprocess.run(
                    tests,
                    cwd=work / 'source',
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    timeout=TIMEOUT,
                    preexec_fn=_take_ctrl_c,
                )
            except subprocess.TimeoutExpired:
                return row | {'result': f'stopped after {TIMEOUT} s, see {log.name}'}
        return row | {'result': _summary(log)}
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _take_ctrl_c() -> None:
    """Undoes what a shell does to a command in the background: it would ignore Ctrl-C, and tests send it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _words(python: str) -> list[str]:
    return subprocess.run([python, '-c', VERSIONS], capture_output=True, text=True, check=True).stdout.split()


def _summary(log: Path) -> str:
    """The last line that counts tests, without its colours."""
    lines = re.findall(r'^=*\s*((?:\d+ \w+,? ?)+in [\d.]+s.*?)\s*=*$', log.read_text(), re.MULTILINE)
    return lines[-1] if lines else f'no result, see {log.name}'


def main() -> int:
    """Runs the chosen combinations one after the other and prints a table in Markdown; 0 if all passed."""
    parser = argparse.ArgumentParser(description='The test suite over Python, torch and torchdistill.')
    parser.add_argument(
        '--folder', type=Path, default=Path(tempfile.gettempdir()) / 'trg_matrix', help='for everything'
    )
    parser.add_argument('--only', action='append', default=[], metavar='WORD', help='part of a name; may be repeated')
    parser.add_argument('--list', action='store_true', help='say what would run')
    args = parser.parse_args()
    chosen = list(combinations(args.only))
    if args.list:
        print('\n'.join(f'{combination.name}  ({combination.interpreter})' for combination in chosen))
        return 0
    args.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for combination in chosen:
        print(f'running {combination.name}', file=sys.stderr)
        rows.append(run(combination, args.folder))
        with (args.folder / 'results.jsonl').open('a') as stream:
            stream.write(json.dumps(rows[-1]) + '\n')
    columns = ('date', 'commit', 'python', 'torch', 'torchvision', 'torchdistill', 'result')
    print(f'| {" | ".join(columns)} |\n|{"---|" * len(columns)}')
    for row in rows:
        print(f'| {" | ".join(row.get(column, "") for column in columns)} |')
    return 0 if rows and all('passed' in row['result'] and 'failed' not in row['result'] for row in rows) else 1


if __name__ == '__main__':
    raise SystemExit(main())
