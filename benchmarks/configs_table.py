"""Runs ``trg-torchdistill add``, and ``check`` on its result, over every YAML of torchdistill with a teacher.

    python benchmarks/configs_table.py CHECKOUT > docs/configs.md

CHECKOUT is a checkout of torchdistill's repository. Nothing of it is kept, and nothing is downloaded: models are built
with random weights and no data set is read. The students of ``ghnd`` and ``hnd`` are torch.hub's: those rows need the
repository yoshitomo-matsubara/sc2-benchmark in its cache, and the packages that it imports.
"""

import argparse
import collections
import contextlib
import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from trg_torchdistill.cli.add import command as add
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.deferred import load_deferred
from trg_torchdistill.cli.recipe.edit import list_changes
from trg_torchdistill.errors import TRGError
from trg_torchdistill_cli import COMMANDS

ROOTS = ('configs/sample', 'configs/official')
# The task of a folder of YAMLs; image classification if it is not here.
TASKS = {
    **dict.fromkeys(('coco2017', 'pascal_voc2012'), 'detection and segmentation'),
    **dict.fromkeys(('glue', 'go_emotions'), 'text'),
}
ORDER = ('image classification', 'text', 'detection and segmentation')
REASONS = {
    'nothing is downloaded here': 'its model downloads something when it is built',
    'to be the key of a registered model': 'names a model that nothing registers',
    'refused its arguments': 'its wrapper refuses the arguments that stand there, with TRG or without',
    'repo_or_dir': 'model from torch.hub',
}
HEAD = """# torchdistill's own configurations

What `trg-torchdistill add` and `check` make of every YAML with a teacher under {roots} of
torchdistill's repository{version}. Reproduce: `python benchmarks/configs_table.py CHECKOUT > docs/configs.md`.
Models have random weights, images are random; nothing is downloaded.
"""
TASK = """
## {task}

{summary}

| file | `add` | layers: teacher -> student | widths | `check` |
|---|---|---|---|---|"""


def main() -> int:
    """Prints the table; returns 1 if a YAML failed in a way that is no refusal, or a second `add` did not refuse."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkout', type=Path)
    parser.add_argument('--version', help='commit or tag of the checkout, for the heading')
    parser.add_argument('--only', default='', help='only the files whose path contains this')
    parser.add_argument('--no-check', action='store_true', help='leave the column of `check` empty')
    args = parser.parse_args()
    files = [file for root in ROOTS for file in sorted((args.checkout / root).rglob('*.yaml'))]
    names = [file.relative_to(args.checkout).as_posix() for file in files]
    version = f' at `{args.version}`' if args.version else ''
    print(HEAD.format(roots=' and '.join(f'`{root}`' for root in ROOTS), version=version))
    rows = []
    for task in ORDER:
        of_task = [name for name in names if TASKS.get(name.split('/')[2], ORDER[0]) == task and args.only in name]
        rows += _print_task(task, args.checkout, of_task, 'check' in COMMANDS and not args.no_check)
    return int(any('FAILED' in row for row in rows))


def _print_task(task: str, checkout: Path, names: list[str], checks: bool) -> list[str]:
    """Prints the heading, the counts and the rows of a task; returns the rows."""
    with_teacher = [name for name in names if load_deferred(str(checkout / name)).teacher_path is not None]
    rows, counts = [], collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        for name in with_teacher:
            print(name, file=sys.stderr)
            row, outcome = _row(checkout, name, Path(folder) / 'new.yaml', checks)
            rows.append(row)
            counts[outcome] += 1
    lines = [f'- {count} of {len(with_teacher)}: {outcome}' for outcome, count in counts.most_common()]
    lines.append(f'- {len(names) - len(with_teacher)} more have no teacher, and TRG relates a student to one')
    print(TASK.format(task=task.capitalize(), summary='\n'.join(lines)))
    print('\n'.join(rows))
    return rows


def _row(checkout: Path, name: str, new: Path, checks: bool) -> tuple[str, str]:
    new.unlink(missing_ok=True)
    code, message = _add(checkout / name, new)
    label = f'`{name.removeprefix("configs/")}`'
    if code:
        text = message.replace(str(checkout / name), 'CONFIG').replace('|', '\\|')
        outcome = next((short for part, short in REASONS.items() if part in text), 'refused for another reason')
        return f'| {label} | refused: {text} | | | |', f'refused, {outcome}'
    old, upgraded = load_deferred(str(checkout / name)), load_deferred(str(new))
    added, replaced, removed = list_changes(_with_moved(old, upgraded), upgraded.data)
    again, _ = _add(new, new.with_name('second.yaml'))
    if removed or again == 0:
        return f'| {label} | FAILED: {removed or "a second `add` did not refuse"} | | | |', 'FAILED'
    layers, widths = _layers(upgraded)
    check = _check(new, checkout / name) if checks else ''
    done = f'upgraded: {len(added)} values added, {len(replaced)} replaced'
    done += ', 1 moved' if 'inner:' in new.read_text() else ''
    return f'| {label} | {done} | {layers} | {widths} | {check} |', 'upgraded'


def _add(config: Path, new: Path) -> tuple[int, str]:
    parser = argparse.ArgumentParser()
    add.add_arguments(parser)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            return add.run(parser.parse_args([str(config), '-o', str(new)])), printed.getvalue()
    except TRGError as error:
        return 2, str(error)


def _layers(upgraded: Config) -> tuple[str, str]:
    """Returns the pair of layers, and the projection between them, from the new YAML itself."""
    stages = [path for path in upgraded.stage_paths() if upgraded.get(*path, 'criterion', 'kwargs', 'sub_terms', 'trg')]
    kwargs = upgraded.mapping(*stages[-1], 'criterion', 'kwargs', 'sub_terms', 'trg', 'criterion', 'kwargs')
    student = kwargs['student_module_path']
    projectors = upgraded.get(*stages[-1], 'student', 'auxiliary_model_wrapper', 'kwargs', 'projectors') or {}
    widths = [f'{one["in_features"]} -> {one["out_features"]}' for one in projectors.values()]
    stage = '' if len(upgraded.stage_paths()) == 1 else f', {stages[-1][-1]}'
    return f'`{kwargs["teacher_module_path"]}` -> `{student}`{stage}', ', '.join(widths) or 'equal'


def _with_moved(old: Config, upgraded: Config) -> dict[str, Any]:
    """Returns what a YAML held, with each wrapper where it stands inside `Student4TRG` now, if it is the same there."""
    for stage in old.stage_paths():
        path = (*stage, 'student', 'auxiliary_model_wrapper')
        wrapper, inner = old.get(*path), upgraded.get(*path, 'kwargs', 'inner')
        if inner is not None and wrapper == inner:
            old.mapping(*path[:-1])[path[-1]] = {'key': 'Student4TRG', 'kwargs': {'inner': inner}}
    return old.data


def _check(new: Path, old: Path) -> str:
    """Returns what `check` says of a YAML; where it fails, whether it says the same of the YAML without TRG."""
    code, said = _checked(new)
    if code == 0:
        return 'passes'
    as_before = ', as without TRG' if _checked(old)[1] == said else ''
    return f'fails ({code}){as_before}: {said}'.replace('|', '\\|')


def _checked(file: Path) -> tuple[int, str]:
    command = [sys.executable, '-m', 'trg_torchdistill', 'check', str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines() or ['']
    return done.returncode, re.sub(r' \(line \d+\)', '', lines[-1]).replace(str(file), 'CONFIG')


if __name__ == '__main__':
    raise SystemExit(main())
