"""Runs ``trg-torchdistill add``, and ``check`` on its result, over every image-classification YAML of torchdistill.

    python benchmarks/configs_table.py CHECKOUT > docs/configs.md

CHECKOUT is a checkout of torchdistill's repository. Nothing of it is kept, and nothing is downloaded: models are built
with random weights and no data set is read.
"""

import argparse
import collections
import contextlib
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from trg_torchdistill.cli.add import command as add
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.deferred import load_deferred
from trg_torchdistill.cli.recipe.edit import list_changes
from trg_torchdistill.errors import TRGError
from trg_torchdistill_cli import COMMANDS

ROOTS = ('configs/sample', 'configs/official')
# Folders of other tasks: detection, segmentation, text.
OTHER_TASKS = ('coco2017', 'pascal_voc2012')
REASONS = {
    'to have a teacher': 'no teacher',
    'auxiliary_model_wrapper': 'has an auxiliary model wrapper',
    'sequential': 'redesigns a model with `sequential`',
    'repo_or_dir': 'model from torch.hub',
}
HEAD = """# torchdistill's own configurations

What `trg-torchdistill add` and `check` make of every image-classification YAML under {roots}
of torchdistill's repository{version}. Reproduce: `python benchmarks/configs_table.py CHECKOUT > docs/configs.md`.
Models have random weights, images are random; nothing is downloaded.

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
    names = [name for name in names if name.split('/')[2] not in OTHER_TASKS and args.only in name]
    checks = 'check' in COMMANDS and not args.no_check
    rows, counts = [], collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            print(name, file=sys.stderr)
            row, outcome = _row(args.checkout, name, Path(folder) / 'new.yaml', checks)
            rows.append(row)
            counts[outcome] += 1
    summary = '\n'.join(f'- {count} of {len(names)}: {outcome}' for outcome, count in counts.most_common())
    version = f' at `{args.version}`' if args.version else ''
    print(HEAD.format(roots=' and '.join(f'`{root}`' for root in ROOTS), version=version, summary=summary))
    print('\n'.join(rows))
    return int(any('FAILED' in row for row in rows))


def _row(checkout: Path, name: str, new: Path, checks: bool) -> tuple[str, str]:
    new.unlink(missing_ok=True)
    code, message = _add(checkout / name, new)
    label = f'`{name.removeprefix("configs/")}`'
    if code:
        text = message.replace(str(checkout / name), 'CONFIG').replace('|', '\\|')
        outcome = next((short for part, short in REASONS.items() if part in text), 'refused for another reason')
        return f'| {label} | refused: {text} | | | |', f'refused, {outcome}'
    old, upgraded = load_deferred(str(checkout / name)), load_deferred(str(new))
    added, replaced, removed = list_changes(old.data, upgraded.data)
    again, _ = _add(new, new.with_name('second.yaml'))
    if removed or again == 0:
        return f'| {label} | FAILED: {removed or "a second `add` did not refuse"} | | | |', 'FAILED'
    layers, widths = _layers(upgraded)
    check = _check(new) if checks else ''
    return (
        f'| {label} | upgraded: {len(added)} values added, {len(replaced)} replaced | {layers} | {widths} | {check} |',
        'upgraded',
    )


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
    student = kwargs['student_module_path'].removeprefix('student_model.')
    projectors = upgraded.get(*stages[-1], 'student', 'auxiliary_model_wrapper', 'kwargs', 'projectors') or {}
    widths = [f'{one["in_features"]} -> {one["out_features"]}' for one in projectors.values()]
    stage = '' if len(upgraded.stage_paths()) == 1 else f', {stages[-1][-1]}'
    return f'`{kwargs["teacher_module_path"]}` -> `{student}`{stage}', ', '.join(widths) or 'equal'


def _check(new: Path) -> str:
    command = [sys.executable, '-m', 'trg_torchdistill', 'check', str(new)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return 'passes'
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines() or ['']
    return f'fails ({done.returncode}): {lines[-1]}'.replace(str(new), 'NEW').replace('|', '\\|')


if __name__ == '__main__':
    raise SystemExit(main())
