"""What an evaluation shows on the terminal, and the whole of it as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from trg_torchdistill.cli.measure.agreement import Agreement, agreement, confusions
from trg_torchdistill.cli.measure.evaluation import (
    FEW_SHOT_BELOW,
    MANY_SHOT_ABOVE,
    Accuracy,
    Predictions,
    class_groups,
    group_accuracy,
)

MAX_NAME = 24
TITLES = {
    'thirds': 'thirds of classes',
    'shots': f'>{MANY_SHOT_ABOVE}, {FEW_SHOT_BELOW}-{MANY_SHOT_ABOVE}, <{FEW_SHOT_BELOW} images',
}
GROUP_KEYS = {'thirds': 'groups', 'shots': 'groups_by_shots'}  # `groups` is what test.json has


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        config: The YAML.
        weights: The student's weights: a file, or what they are.
        predictions: Those of the student and, if it was asked, of the teacher.
        names: Name of each class.
        train_counts: Number of training images of each class, None if it is not known.
        conventions: Groups of classes to show, see ``class_groups``.
    """

    config: str
    weights: str
    predictions: Predictions
    names: list[str]
    train_counts: list[int] | None
    conventions: Sequence[str]

    @property
    def accuracies(self) -> dict[str, Accuracy]:
        """Accuracy of the ``student`` and, if it was asked, of the ``teacher``."""
        sides = ('student', 'teacher')[: len(self.predictions.ranked)]
        return {side: self.predictions.accuracy(position) for position, side in enumerate(sides)}

    @property
    def agreement(self) -> Agreement | None:
        """Agreement with the teacher, None without one."""
        return agreement(self.predictions) if len(self.predictions.ranked) == 2 else None

    @property
    def test_counts(self) -> list[int]:
        """Number of test images of each class."""
        counts: list[int] = torch.bincount(self.predictions.labels, minlength=len(self.names)).tolist()
        return counts


def as_json(found: Evaluation) -> dict[str, Any]:
    """Returns everything; ``test``, ``teacher`` and ``weights`` are those of ``test.json``."""
    record: dict[str, Any] = {'config': found.config, 'weights': found.weights}
    for side, accuracy in found.accuracies.items():
        groups = {key: _groups(found, accuracy, each) for each, key in GROUP_KEYS.items() if found.conventions}
        record['test' if side == 'student' else side] = {**accuracy.as_dict(), **groups}
    record['classes'] = [
        {'name': name, 'test_images': count, 'train_images': _at(found.train_counts, label)}
        for label, (name, count) in enumerate(zip(found.names, found.test_counts, strict=True))
    ]
    record['confusions'] = [asdict(confusion) for confusion in confusions(found.predictions)]
    if found.agreement is not None:
        record['agreement'] = found.agreement.as_dict()
    return record


def as_text(found: Evaluation, rows: int) -> Iterator[str]:
    """Yields the lines for the terminal, at most 80 columns wide.

    Args:
        found: What was measured.
        rows: Number of confusions, and of classes at each end of a table that has more than two times as many.
    """
    yield from _class_lines(found, rows)
    for convention in found.conventions:
        yield ''
        yield from _group_lines(found, convention)
    yield ''
    yield from _confusion_lines(found, rows)
    if found.agreement is not None:
        yield ''
        yield from _agreement_lines(found.agreement)


def _groups(found: Evaluation, accuracy: Accuracy, convention: str) -> dict[str, float | None]:
    counts = found.train_counts or []
    per_class = [_at(accuracy.per_class, label) for label in range(max(len(counts), len(accuracy.per_class)))]
    return group_accuracy(per_class, counts, convention)


def _class_lines(found: Evaluation, rows: int) -> Iterator[str]:
    columns = {f'{side} %': accuracy.per_class for side, accuracy in found.accuracies.items()}
    known = ((value, label) for label, value in enumerate(columns['student %']) if value is not None)
    by_accuracy = [label for _, label in sorted(known)]
    if found.agreement is not None:
        columns['agree %'] = found.agreement.per_class
    width = max(5, *(min(len(name), MAX_NAME) for name in found.names))
    yield f'{"class":{width}}{"test":>7}{"train":>7}{"".join(f"{title:>11}" for title in columns)}'
    is_cut = len(found.names) > 2 * rows
    for label in [*by_accuracy[:rows], None, *by_accuracy[-rows:]] if is_cut else range(len(found.names)):
        if label is None:
            yield f'... the {rows} worst above, the {rows} best below, of {len(found.names)} classes (--rows, --json)'
            continue
        train = _at(found.train_counts, label)
        head = f'{_name(found, label):{width}}{found.test_counts[label]:>7}{"-" if train is None else train:>7}'
        yield head + ''.join(f'{_percent(_at(values, label)):>11}' for values in columns.values())


def _group_lines(found: Evaluation, convention: str) -> Iterator[str]:
    counts = found.train_counts or []
    values = {side: _groups(found, accuracy, convention) for side, accuracy in found.accuracies.items()}
    heads = ''.join(f'{f"{side} %":>11}' for side in values)
    yield f'{TITLES[convention]:24}{"classes":>9}{"train images":>15}{heads}'
    for group, labels in class_groups(counts, convention).items():
        sizes = [counts[label] for label in labels]
        span = f'{max(sizes)} to {min(sizes)}' if sizes else '-'
        cells = ''.join(f'{_percent(each[group]):>11}' for each in values.values())
        yield f'{group:24}{len(labels):>9}{span:>15}{cells}'


def _confusion_lines(found: Evaluation, rows: int) -> Iterator[str]:
    pairs = confusions(found.predictions)
    if not pairs:
        yield 'the student confuses no classes'
        return
    rest = f', {rows} of {len(pairs)}' if len(pairs) > rows else ''
    yield f'most frequent confusions of the student{rest}: true -> predicted, images'
    for pair in pairs[:rows]:
        total = found.test_counts[pair.true]
        yield f'  {_name(found, pair.true)} -> {_name(found, pair.predicted)}  {pair.count} of {total}'


def _agreement_lines(found: Agreement) -> Iterator[str]:
    yield f'teacher and student agree on {found.share:.2f} % of {found.num_images} images'
    yield f'  {"":15}{"student right":>15}{"student wrong":>15}'
    yield f'  {"teacher right":15}{found.both_right:>15}{found.only_teacher_right:>15}'
    both_wrong = found.both_wrong_same + found.both_wrong_differently
    same = f'   ({found.both_wrong_same} of them alike)' if both_wrong else ''
    yield f'  {"teacher wrong":15}{found.only_student_right:>15}{both_wrong:>15}{same}'
    if found.num_disagreements:
        parts = f'teacher right {found.only_teacher_right}, student right {found.only_student_right}'
        yield f'  of {found.num_disagreements} disagreements: {parts}, neither {found.both_wrong_differently}'
    divergence = 'not defined' if found.divergence is None else f'{found.divergence:.4f} nats'
    yield f'  mean KL(teacher || student), temperature 1: {divergence}'


def _at(values: Sequence[Any] | None, position: int) -> Any:
    return values[position] if values is not None and position < len(values) else None


def _name(found: Evaluation, label: int) -> str:
    return found.names[label][:MAX_NAME]


def _percent(value: float | None) -> str:
    return '-' if value is None else f'{value:.2f}'
