"""What ``trg-torchdistill check`` found, as text for a terminal and as one JSON object."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

from trg_torchdistill.cli.add.report import describe
from trg_torchdistill.cli.check.cost import Cost
from trg_torchdistill.cli.check.setup import Sides
from trg_torchdistill.cli.check.start import Pull
from trg_torchdistill.cli.check.steps import FirstStep
from trg_torchdistill.cli.check.unread_keys import Notice
from trg_torchdistill.cli.probe.image_size import ImageSize
from trg_torchdistill.cli.probe.layers import alternatives, choose_layer
from trg_torchdistill.cli.probe.probe import ModelProbe, Record
from trg_torchdistill.cli.runtime.wrapping import wrapped
from trg_torchdistill.cli.tasks.recognised import CLASSIFICATION
from trg_torchdistill.errors import TRGError

MAX_UNREAD = 10


@dataclass(frozen=True)
class StageReport:
    """One training stage.

    Attributes:
        name: Its path in the YAML.
        num_epochs: Its epochs.
        batch_size: The YAML's.
        first: Its first step.
        cost: Seconds of a step.
        pulls: How hard losses on token graphs pull at the student, where that is known for our results.
        untold: Why it is not, empty where nobody asks for it.
    """

    name: str
    num_epochs: int
    batch_size: int
    first: FirstStep
    cost: Cost
    pulls: Sequence[Pull]
    untold: str


@dataclass
class Report:
    """All that is known; what comes after the error is missing.

    Attributes:
        config: The file.
        error: The one error to fix, None if the YAML will train.
        sides: The models.
        hooked: By side, the module paths that the YAML hooks, with and without the name of a wrapper before them.
        batch_size: Images a step here.
        stages: The stages that were run.
        notices: The warnings.
        data: A line for each loader, None if the data was not looked at.
        is_on_data: Whether the steps were taken on items of the training data, and not on random ones.
    """

    config: str
    error: str | None = None
    sides: Sides | None = None
    hooked: dict[str, set[str]] = field(default_factory=dict)
    batch_size: int | None = None
    stages: list[StageReport] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    data: list[str] | None = None
    is_on_data: bool = False


def as_json(report: Report) -> dict[str, Any]:
    """Returns the report as plain values; numbers that are not finite become null."""
    sides = report.sides
    return {
        'config': report.config,
        'ok': report.error is None,
        'error': report.error,
        'task': None if sides is None else sides.task.name,
        'image_size': [sides.size.height, sides.size.width] if sides and isinstance(sides.size, ImageSize) else None,
        'image_size_source': None if sides is None else sides.size.source,
        'batch_size': report.batch_size,
        'data': report.data,
        'steps_on': 'data' if report.is_on_data else 'random',
        'models': {} if sides is None else {side: _model(sides, side, report.hooked[side]) for side in sides.probes},
        'stages': [_finite(_stage(stage)) for stage in report.stages],
        'warnings': [asdict(notice) for notice in report.notices],
    }


def _model(sides: Sides, side: str, hooked: set[str]) -> dict[str, Any]:
    probe = sides.probes[side]
    modules = [
        {
            'path': record.path,
            'class': record.class_name,
            'runs': record.runs,
            'output': None if record.shape is None else list(record.shape),
            'tokens': None if record.grid is None else {'grid': list(record.grid), 'width': record.width},
            'hooked': record.path in hooked,
        }
        for record in probe.records
    ]
    return {'key': probe.key, 'weights': sides.weights[side], 'parameters': _count(probe), 'modules': modules}


def _stage(stage: StageReport) -> dict[str, Any]:
    first = stage.first
    facts: dict[str, list[Any]] = {'graphs': [], 'contexts': []}
    for each in first.facts:
        facts.setdefault(each.listed_as, []).append(asdict(each))
    return {
        'name': stage.name,
        'num_epochs': stage.num_epochs,
        'batch_size': stage.batch_size,
        'loss': first.loss,
        'terms': [{'name': term.name, **asdict(term), 'weighted': term.weighted} for term in first.terms],
        'pulls': [asdict(pull) for pull in stage.pulls],
        'untold': stage.untold,
        'unreached': list(first.unreached),
        **facts,
        'step': asdict(stage.cost),
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_text(report: Report, all_modules: bool = False) -> Iterator[str]:
    """Yields the lines for the terminal, plain and at most 80 columns wide where names allow.

    Args:
        report: What was found.
        all_modules: Whether to list every module that runs.
    """
    yield from wrapped(report.config)
    if report.sides is not None:
        yield from _head(report.sides, report.batch_size, 'of the data' if report.is_on_data else 'random')
        for side, probe in report.sides.probes.items():
            yield ''
            yield from _modules(side, probe, report.hooked[side], all_modules)
    for stage in report.stages:
        yield ''
        items = 'items' if report.sides is None else report.sides.task.items
        yield from _stage_lines(stage, report.batch_size or stage.batch_size, items)
    yield from _notices(report.notices)
    if report.error is None:
        yield ''
        hint = '; --data does that' if report.sides is not None and report.sides.task is CLASSIFICATION else ''
        for line in report.data if report.data is not None else [f'the data was not looked at{hint}']:
            yield from wrapped(line)
        refused = any(notice.kind == 'teacher_weights' for notice in report.notices)
        then = " once the teacher's weights are there" if refused else ''
        count = len(report.notices)
        yield f'ok: will train{then}' + (f'; {_counted(count, "warning")}' if count else ', no warnings')


def _head(sides: Sides, batch_size: int | None, which: str) -> Iterator[str]:
    task = sides.task
    yield from wrapped(f'task     {task.name}; label of {task.item}: {task.label}; metric: {task.metric}', 9)
    for side, probe in sides.probes.items():
        yield from wrapped(f'{side}  {probe.key}, {_short(_count(probe))} parameters, {sides.weights[side]}', 9)
    yield from wrapped(f'{task.items:<9}{sides.size}, {which} ({sides.size.source})', 9)
    if batch_size is not None:
        yield f'batch    {batch_size} {task.items}'


def _modules(side: str, probe: ModelProbe, hooked: set[str], all_modules: bool) -> Iterator[str]:
    running = [record for record in probe.records if record.runs]
    records = running if all_modules else _choice(side, probe, hooked)
    rest = '' if all_modules else f'; {len(running)} run, --all-modules lists them'
    yield f'{side}: modules to hook (* = hooked{rest})'
    column = min(max((len(record.path) for record in records), default=0), 40)
    for record in records:
        star = '*' if record.path in hooked else ' '
        shape, tokens = describe(record)
        yield f' {star} {record.path:<{column}}  {shape:<12}  {tokens}'.rstrip()


def _choice(side: str, probe: ModelProbe, hooked: set[str]) -> list[Record]:
    """Returns the hooked modules and those that make good tokens, in the order in which they run."""
    chosen = [record for record in probe.records if record.path in hooked]
    try:
        best = choose_layer(probe, side)
        chosen += [record for record in (best, *alternatives(probe, best)) if record not in chosen]
    except TRGError:
        pass  # a model without feature maps has none to list
    return sorted(chosen, key=lambda record: record.order or 0)


def _stage_lines(stage: StageReport, batch_size: int, items: str) -> Iterator[str]:
    terms, cost = stage.first.terms, stage.cost
    reduced = f", fewer than the YAML's {stage.batch_size}" if batch_size < stage.batch_size else ''
    yield f'{stage.name}: {_counted(stage.num_epochs, "epoch")}; first step, {batch_size} {items}{reduced}'
    column = max([len(term.name) for term in terms] + [5])
    if terms:
        yield f'  {"term":<{column}}  {"weight":>9}  {"value":>10}  {"weighted":>10}  {"gradient":>9}  share'
    for term in terms:
        share = '-' if term.share is None else f'{term.share:.1%}'
        numbers = f'{term.weight:>9.4g}  {term.value:>10.4g}  {term.weighted:>10.4g}  {term.gradient_norm:>9.3g}'
        yield f'  {term.name:<{column}}  {numbers}  {share:>6}'
    yield f'  {"total":<{column}}  {"":>9}  {"":>10}  {stage.first.loss:>10.4g}'
    for facts in stage.first.facts:
        yield from wrapped(facts.line(stage.batch_size), 4, '  ')
    for pull in stage.pulls:
        weights = ' and '.join(f'`{keyword}: {_plain(weight)}`' for keyword, weight in pull.weights.items())
        weights += '' if 'weight' in pull.weights else ' under its `kwargs:`'
        line = f'{pull.term}: its gradient is {pull.ratio:.2g} times that of the other terms; {weights}'
        line = f'{line} would make it {pull.wanted:.2g} times, a place to begin (docs/results.md)'
        if batch_size < stage.batch_size:
            line += f'; `--batch-size {stage.batch_size}` tells that of batches as they are trained'
        yield from wrapped(line, 4, '  ')
    if stage.untold:
        yield from wrapped(f'no weight to begin with is told: {stage.untold}', 4, '  ')
    step = f'step {_seconds(cost.seconds)}'
    if cost.without_trg is not None:
        step += f', without TRG {_seconds(cost.without_trg)}: {cost.seconds / cost.without_trg - 1:+.0%}'
    how = f'median of {cost.steps}, {_counted(cost.threads, "thread")}; an indication, the machine matters'
    yield from wrapped(f'{step} ({how})', 4, '  ')


def _plain(value: float) -> str:
    """Two digits, as YAML 1.1 reads them as a number: without an exponent."""
    return f'{Decimal(f"{value:.2g}"):f}'


def _notices(notices: list[Notice]) -> Iterator[str]:
    if not notices:
        return
    yield ''
    yield 'warnings'
    unread = [notice for notice in notices if notice.kind == 'unread_key'][MAX_UNREAD:]
    for number, notice in enumerate((notice for notice in notices if notice not in unread), 1):
        yield from wrapped(f'{number:>3}. {notice.text}', 5)
    if unread:
        yield f'     and {len(unread)} more keys that torchdistill does not read'


def _count(probe: ModelProbe) -> int:
    return sum(parameter.numel() for parameter in probe.model.parameters())


def _counted(count: int, what: str) -> str:
    return f'{count} {what}{"s" * (count > 1)}'


def _short(count: int) -> str:
    return f'{count / 1e6:.1f} M' if count >= 1e6 else f'{count / 1e3:.1f} k' if count >= 1e3 else str(count)


def _seconds(seconds: float) -> str:
    return f'{seconds:.2f} s' if seconds >= 1 else f'{1000 * seconds:.0f} ms'
