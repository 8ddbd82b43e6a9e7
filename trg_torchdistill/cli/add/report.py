"""What ``trg-torchdistill add`` prints: the layers it took, those it could have taken, and what to do next."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterator

from trg_torchdistill.cli.add.choice import Choice, Plan
from trg_torchdistill.cli.probe.image_size import ImageSize
from trg_torchdistill.cli.probe.layers import alternatives
from trg_torchdistill.cli.probe.probe import ModelProbe, Record
from trg_torchdistill.cli.probe.trial import Trial
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.runtime.wrapping import wrapped
from trg_torchdistill.cli.tasks.recognised import CLASSIFICATION
from trg_torchdistill.cli.tasks.task import Task

OF_CNN = (
    'in our trainings a small CNN learned faster with TRG and was no better after long ones, where a small ViT gained: '
    'docs/results.md.'
)


def report(
    config: Config,
    task: Task,
    trial: Trial,
    choice: Choice,
    plan: Plan,
    written: tuple[str, str],
    warning: str | None,
) -> Iterator[str]:
    """Yields the lines for the terminal, plain and at most 80 columns wide where names allow.

    Args:
        config: The YAML as it was.
        task: Its task.
        trial: Both models and what their modules did.
        choice: What was chosen.
        plan: What was changed.
        written: The new text, and the file it went to.
        warning: What must be known before it is used, None if nothing.
    """
    where = '.'.join(choice.stage)
    yield from wrapped(f'{config.path} ({where}), {task.items} {trial.size} ({trial.size.source})')
    for reason in trial.refused:
        yield from wrapped(f'not {reason}')
    for side, record in (('teacher', choice.teacher), ('student', choice.student)):
        yield ''
        yield from wrapped(
            f'{side}  {trial.probes[side].key}{task.built_as(config, side, trial.probes[side].model)}', 9
        )
        yield from _layers(trial.probes[side], record, f'--{side}-layer')
    yield ''
    yield from wrapped(_projection(choice, task))
    expected = [OF_CNN] if task is CLASSIFICATION and choice.student.layout == 'bchw' else []
    for note in (*plan.notes, *expected):
        yield from wrapped(f'- {note}')
    text, output = written
    changes = [line[0] for line in difflib.ndiff(config.text.splitlines(), text.splitlines())]
    taken = changes.count('-')
    replaced = f', {taken} replaced' if taken else ''
    yield ''
    yield f'wrote {output}: {changes.count("+") - taken} lines added{replaced}'
    if warning is not None:
        yield ''
        yield from wrapped(f'WARNING: {warning}, and add TRG again:')
        yield f'  {_command("add", str(config.path), "-o", output, "--overwrite", "--input-size", "N")}'
    size, told = trial.size, []
    if isinstance(size, ImageSize) and size.source == '--input-size':
        told = ['--input-size', f'{size.height}x{size.width}']
    yield 'next:'
    yield f'  {_command("check", output, *told)}'
    if task is CLASSIFICATION:
        yield f'  {_command("check", output, "--data", *told)}    # on your images: which weights'
    yield f'  {task.command(config, output)}'


def _command(*words: str) -> str:
    return shlex.join(['trg-torchdistill', *words])


def _layers(probe: ModelProbe, chosen: Record, option: str) -> Iterator[str]:
    """Yields the layer that is taken and the ones to take instead, in columns."""
    others = alternatives(probe, chosen)
    rows = [(record.path, *describe(record)) for record in (chosen, *others)]
    path_width, shape_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    for position, (path, shape, tokens) in enumerate(rows):
        label = {0: 'hook', 1: 'or'}.get(position, '')
        yield f'  {label:<4} {path:<{path_width}}  {shape:<{shape_width}}  {tokens}'
    if others:
        yield f'       (choose with {option} PATH)'


def describe(record: Record) -> tuple[str, str]:
    """Returns the shape of an output for one image, and its tokens."""
    shape = 'x'.join(str(size) for size in (record.shape or ())[1:])
    if not record.is_in_order:
        return shape, 'tokens in another order than rows'
    cells = '' if record.grid is None else 'x'.join(str(side) for side in record.grid[record.layout == 'bld' :])
    grid = 'no tokens' if record.grid is None else f'{cells} tokens of {record.width}'
    prefix = f', less {record.num_prefix_tokens} prefix' if record.num_prefix_tokens else ''
    layout = ', channels last' if record.layout == 'bhwc' else ''
    key = '' if record.key is None else f', key {record.key!r}'
    return shape, f'{grid}{prefix}{layout}{key}'


def _projection(choice: Choice, task: Task) -> str:
    teacher, student = choice.teacher.grid or (1, 1), choice.student.grid or (1, 1)
    common = (min(teacher[0], student[0]), min(teacher[1], student[1]))
    pooled = '' if teacher == student else f', the larger grid pooled to {common[0]}x{common[1]}'
    tokens = f'tokens: {common[0] * common[1]} {task.item}{pooled}'
    if choice.needs_projection:
        widths = f'{choice.student.width} -> {choice.teacher.width}'
        return f'{tokens}; projection {widths} in `Student4TRG`, as the widths differ'
    return f'{tokens}; both {choice.student.width} wide, no projection needed'
