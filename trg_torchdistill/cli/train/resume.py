"""A run that goes on: its state, what it makes of a YAML that was changed meanwhile, and the command to continue it."""

from __future__ import annotations

import argparse
import difflib
import shlex
from collections.abc import Sequence
from typing import Any

from trg_torchdistill.cli.measure.run_files import RunFiles
from trg_torchdistill.cli.probe.weights import weights_alone
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.deferred import parse_deferred
from trg_torchdistill.cli.runtime.processes import Processes
from trg_torchdistill.cli.runtime.progress import Reporter
from trg_torchdistill.cli.train.checkpoint import load_training_state
from trg_torchdistill.errors import TRGError

MAX_CHANGES_SHOWN = 6
# What the state of an optimizer and a scheduler brings along, whatever the YAML says.
STORED = {'optimizer': ('key', 'kwargs', 'module_wise_configs'), 'scheduler': ('key', 'kwargs')}


def earlier_state(
    args: argparse.Namespace, config: Config, files: RunFiles, processes: Processes
) -> dict[str, Any] | None:
    """Returns the state to continue from, None to start; refuses to write over an earlier run, or to mix two.

    Only the first process looks at the files: other nodes need not see its disk.
    """
    stored = _stored_state(args, config, files) if processes.is_first else None
    state: dict[str, Any] | None = processes.from_first(stored)
    return state


def _stored_state(args: argparse.Namespace, config: Config, files: RunFiles) -> dict[str, Any] | None:
    if not args.resume:
        for file in () if args.overwrite else (files.last, files.metrics):
            if file.exists():
                raise TRGError(
                    f'expected {files.folder} to hold no run yet, got {file.name}; continue that run with `--resume`, '
                    'replace it with `--overwrite`, or choose another `dst_ckpt:`; another `--run_dir` alone keeps the '
                    'run, and writes over its weights'
                )
        return None
    if args.start_epoch != 0:
        raise TRGError('expected either `--resume` or `--start_epoch`, got both; `--resume` knows its epoch')
    state = load_training_state(files.last)
    _check_unchanged(config, state, files)
    return state


def _check_unchanged(config: Config, state: dict[str, Any], files: RunFiles) -> None:
    """Refuses changes of the YAML that a resumed run would not follow."""
    before, now = (Config(config.path, text, parse_deferred(text)) for text in (state['config_text'], config.text))
    begun = before.stage_paths()[: state['stage']]
    for stage in begun:
        for path in ((*stage, block, name) for block, names in STORED.items() for name in names):
            if before.get(*path) != now.get(*path):
                raise _changed(path, before, now, 'a resumed optimizer and scheduler go on as they began', files)
    for stage in begun[:-1]:
        if before.get(*stage, 'num_epochs') != now.get(*stage, 'num_epochs'):
            raise _changed((*stage, 'num_epochs'), before, now, 'that stage is over', files)
    done, end = state['progress']['epochs_done'], sum(now.get(*stage, 'num_epochs') or 0 for stage in begun)
    if len(now.stage_paths()) > len(begun) and end <= done:
        raise _changed((*begun[-1], 'num_epochs'), before, now, f'{done} epochs are done', files)
    path = (*before.student_path, 'dst_ckpt')
    if before.get(*path) != now.get(*path) and state['progress']['best_epoch'] is not None and not files.best.exists():
        raise _changed(path, before, now, 'the best weights so far are in that file, and none in this one', files)


def tell_changes(
    config: Config, state: dict[str, Any], args: argparse.Namespace, processes: Processes, reporter: Reporter
) -> None:
    """Warns when the YAML, the seed, the precision or the processes are not those that the run began with."""
    before, now = state['config_text'].splitlines(), config.text.splitlines()
    changes = [line for line in difflib.unified_diff(before, now, lineterm='', n=0) if line[:3] not in ('---', '+++')]
    if changes:
        first = state['progress']['epochs_done'] + 1
        reporter.say(
            f'WARNING: {config.path} is not what this run began with; from epoch {first} on it follows the lines with '
            f'`+`, except that weights in the state are not read from a `src_ckpt:` again:'
        )
        for line in changes[:MAX_CHANGES_SHOWN]:
            reporter.say(f'  {line}')
        if len(changes) > MAX_CHANGES_SHOWN:
            reporter.say(f'  ... and {len(changes) - MAX_CHANGES_SHOWN} lines more')
    if args.seed != state['seed']:
        reporter.say(
            f'WARNING: this run began with --seed {state["seed"]}, now it is {args.seed}; data sets that the YAML '
            'splits at random may be split in another way'
        )
    if args.amp != state['precision']['name']:
        reporter.say(f'WARNING: this run went on with --amp {state["precision"]["name"]}, now it is {args.amp}')
    views_before = state.get('teacher_views')
    if args.teacher_views != views_before:
        reporter.say(f'WARNING: this run went on with --teacher_views {views_before}, now it is {args.teacher_views}')
    num_before, num_now = len(state['processes']), processes.size
    if num_before != num_now:
        reporter.say(
            f'WARNING: this run went on in {num_before} processes, now they are {num_now}; it continues, but not as '
            'it would have: images are shared out in another way, and a step has another number of them'
        )


def resume_command(words: Sequence[str], processes: Processes) -> str:
    """Returns the command that continues the run of a command line, given by its words."""
    of_the_start = argparse.ArgumentParser(add_help=False)
    for flag in ('--resume', '--overwrite'):
        of_the_start.add_argument(flag, action='store_true')
    of_the_start.add_argument('--start_epoch')
    launcher = ['trg-torchdistill']
    if processes.are_several:
        launcher = ['torchrun', '--nproc_per_node', str(processes.local_size)]
        if processes.size > processes.local_size:
            nodes = str(processes.size // processes.local_size)
            launcher += ['--nnodes', nodes, '--rdzv_backend', 'c10d', '--rdzv_endpoint', 'HOST:PORT']
        launcher += ['-m', 'trg_torchdistill']
    return shlex.join([*launcher, *of_the_start.parse_known_args(words)[1], '--resume'])


def _changed(path: tuple[str, ...], before: Config, now: Config, reason: str, files: RunFiles) -> TRGError:
    return TRGError(
        f'expected {now.where(*path)} to be {before.get(*path)}, with which the run of {files.folder} began, got '
        f'{now.get(*path)}: {reason}. Undo the change, or start anew with `--overwrite` or another `dst_ckpt:`; to '
        f'start from the best weights so far, name the file that this writes as `src_ckpt:` of the student: '
        f'{weights_alone(str(files.best))}'
    )
