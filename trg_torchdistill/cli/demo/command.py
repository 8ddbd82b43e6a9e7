"""``trg-torchdistill demo``: teacher, student alone, KD and TRG on handwritten digits, with a table and a picture."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

import trg_torchdistill
from trg_torchdistill.cli.demo.report import RunResult, draw_report, report_lines
from trg_torchdistill.cli.plot.curves import read_run
from trg_torchdistill.cli.plot.figures import new_figure
from trg_torchdistill.cli.recipe.deferred import parse_deferred
from trg_torchdistill.cli.runtime.exit_codes import EXIT_INTERRUPTED
from trg_torchdistill.datasets import Digits
from trg_torchdistill.errors import RunError

CONFIGS = ('teacher', 'student', 'kd', 'trg', 'longtailed_kd', 'longtailed_trg')
PACKAGE = Path(trg_torchdistill.__file__).parent
SAMPLES = PACKAGE / 'samples' / 'digits'
SECONDS_TO_STOP = 5
LOG_LINES_SHOWN = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the sub-command."""
    parser.add_argument('--out', default='demo_output', metavar='DIR', help='folder of all results (demo_output)')
    parser.add_argument('--seed', type=int, default=0, help='seed of every run (0)')
    parser.add_argument('--device', default='auto', help='auto (a GPU where there is one), cpu, cuda, ...')
    parser.add_argument('--quick', action='store_true', help='one epoch a run, to see that everything works')


def run(args: argparse.Namespace) -> int:
    """Runs the six trainings, prints the table, and writes ``results.json`` and ``curves.png``.

    Raises:
        TRGError: If an optional package is missing.
        RunError: If a training fails.
    """
    new_figure(1, 1)
    Digits('val')
    out = Path(args.out).expanduser().resolve()
    configs = _copy_configs(out / 'configs', args.quick)
    began = time.perf_counter()
    print(f'{len(configs)} trainings on handwritten digits; results in {args.out}/')
    results: dict[str, RunResult] = {}
    try:
        for position, (name, config) in enumerate(configs.items(), 1):
            results[name] = train(config, out, args.seed, args.device, f'[{position}/{len(configs)}] {name:14}')
    except KeyboardInterrupt:
        print(f'\ninterrupted; {len(results)} of {len(configs)} trainings are finished in {args.out}/runs')
        return EXIT_INTERRUPTED
    seconds = time.perf_counter() - began
    record = {'seed': args.seed, 'quick': args.quick, 'seconds': round(seconds, 1)}
    record['runs'] = {name: result.as_dict() for name, result in results.items()}
    (out / 'results.json').write_text(json.dumps(record, indent=2) + '\n', encoding='utf-8')
    draw_report(results).savefig(out / 'curves.png', dpi=120)
    print('\n' + '\n'.join(report_lines(results, args.seed)))
    if args.quick:
        print('--quick: one epoch a training; these numbers show only that everything runs.')
    print(f'\n{seconds:.0f} s. In {args.out}/: curves.png, results.json, configs (the YAMLs), runs (logs)')
    return 0


def train(config: Path, out: Path, seed: int, device: str, prefix: str) -> RunResult:
    """Trains and tests one YAML by ``trg-torchdistill train`` in a process of its own, and returns the results.

    The host attaches the processes of a YAML to its classes, so two trainings do not share a process.

    Args:
        config: The YAML.
        out: Working folder: the relative paths of the YAML start here.
        seed: Seed of the training.
        device: Device of the training.
        prefix: Stands before the progress that is shown.

    Raises:
        RunError: If the training fails.
    """
    folder = out / 'runs' / config.stem
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, '-m', 'trg_torchdistill', 'train', str(config), '--overwrite']
    words += ['--seed', str(seed), '--device', device, '--run_dir', str(folder)]
    log = folder / 'output.txt'
    began = time.perf_counter()
    with log.open('w', encoding='utf-8') as file:
        process = subprocess.Popen(
            words, cwd=out, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            _follow(process, file, prefix)
        except KeyboardInterrupt:
            _stop(process)
            raise
    if process.returncode != 0:
        tail = '\n'.join(f'  {line}' for line in log.read_text(encoding='utf-8').splitlines()[-LOG_LINES_SHOWN:])
        raise RunError(f'the training of {config} failed; the end of {log}:\n{tail}')
    tested = json.loads((folder / 'test.json').read_text(encoding='utf-8'))['test']
    loader = parse_deferred(config.read_text(encoding='utf-8'))['train']['train_data_loader']
    _show(f'{prefix} test top-1 {tested["top1"]:6.2f} %   {time.perf_counter() - began:4.0f} s', final=True)
    return RunResult(read_run(folder), tested, loader['kwargs']['batch_size'])


def _follow(process: subprocess.Popen[str], log: TextIO, prefix: str) -> None:
    """Copies the output of the training into its log and shows its last epoch."""
    _show(f'{prefix} starting')
    for line in process.stdout or ():
        log.write(line)
        log.flush()
        if line.startswith('epoch'):
            _show(f'{prefix} {" ".join(line.partition(" best")[0].split())}')
    process.wait()


def _copy_configs(target: Path, quick: bool) -> dict[str, Path]:
    """Copies the sample YAMLs into the working folder; ``quick`` sets their number of epochs to 1."""
    target.mkdir(parents=True, exist_ok=True)
    copies = {name: target / f'{name}.yaml' for name in CONFIGS}
    for path in copies.values():
        text = (SAMPLES / path.name).read_text(encoding='utf-8')
        if quick:
            text = re.sub(r'(num_epochs: &num_epochs) \d+', r'\1 1', text)
        path.write_text(text, encoding='utf-8')
    return copies


def _environment() -> dict[str, str]:
    """The environment of a training: it finds this very package, also in a checkout that is not installed.

    OpenMP's threads sleep while they wait: spinning ones slow a small model down tenfold when another process is busy.
    """
    paths = [str(PACKAGE.parent), os.environ.get('PYTHONPATH', '')]
    python_path = os.pathsep.join(path for path in paths if path)
    return {'OMP_WAIT_POLICY': 'PASSIVE', **os.environ, 'PYTHONPATH': python_path}


def _stop(process: subprocess.Popen[str]) -> None:
    """Waits for a training that the terminal's Ctrl-C has reached as well, and ends it if it does not."""
    try:
        process.wait(timeout=SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _show(text: str, final: bool = False) -> None:
    """Prints a line; on a terminal the next one replaces it unless it is final."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f'\r{text[:width]:{width}}', end='\n' if final else '', flush=True)
    elif final:
        print(text, flush=True)
