"""What the demo shows at its end: the table, a sentence on what the numbers can carry, and the curves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trg_torchdistill.cli.plot.curves import History, leaf_terms
from trg_torchdistill.cli.plot.figures import REFERENCE_COLOR, draw_line, finish_epochs, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {'teacher': 'teacher ResNet-20', 'student': 'student alone', 'kd': 'KD', 'trg': 'KD + TRG'}
LONG_TAILED_TITLES = {'longtailed_kd': 'KD', 'longtailed_trg': 'KD + TRG'}


@dataclass(frozen=True)
class RunResult:
    """What one training gave.

    Attributes:
        history: Its epochs, as in ``metrics.jsonl``.
        test: Its accuracies, as in ``test.json``.
        batch_size: Images of a step.
    """

    history: History
    test: Mapping[str, Any]
    batch_size: int

    @property
    def train_images(self) -> int:
        """Images of an epoch."""
        last = self.history[-1]
        num_images: float = last['images_per_second'] * last['seconds']['train']
        return round(num_images)

    @property
    def milliseconds_a_step(self) -> float:
        """Median over the epochs, without the first one, which warms up."""
        epochs = self.history[1:] or self.history
        speeds: list[float] = [line['images_per_second'] for line in epochs]
        return 1000 * self.batch_size / statistics.median(speeds)

    def as_dict(self) -> dict[str, Any]:
        """Returns the numbers of ``results.json``."""
        return {
            'train_images': self.train_images,
            'epochs': len(self.history),
            'best_val_top1': self.history[-1]['best_val_top1'],
            'test': dict(self.test),
            'ms_per_step': round(self.milliseconds_a_step, 1),
        }


def report_lines(results: Mapping[str, RunResult], seed: int) -> list[str]:
    """Returns the tables and what they can carry, at most 80 columns wide."""
    num_images = results['kd'].test['n']
    lines = [
        f'Handwritten digits, ResNet-8 student, {num_images} test images, seed {seed}',
        '',
        f'{"":18}{"images":>8}{"top-1 %":>9}{"top-5 %":>9}{"ms/step":>9}',
    ]
    for name, title in TITLES.items():
        result = results[name]
        accuracies = f'{result.test["top1"]:9.2f}{result.test["top5"]:9.2f}'
        lines.append(f'{title:18}{result.train_images:>8}{accuracies}{result.milliseconds_a_step:9.0f}')
    lines += [
        '',
        f'{"long-tailed":18}{"images":>8}{"top-1 %":>9}{"many %":>9}{"medium %":>9}{"few %":>9}{"ms/step":>9}',
    ]
    for name, title in LONG_TAILED_TITLES.items():
        result = results[name]
        accuracies = ''.join(f'{value:9.2f}' for value in (result.test['top1'], *result.test['groups'].values()))
        lines.append(f'{title:18}{result.train_images:>8}{accuracies}{result.milliseconds_a_step:9.0f}')
    return [*lines, '', *_verdict(results)]


def draw_report(results: Mapping[str, RunResult]) -> Figure:
    """Draws validation accuracies, TRG's terms and its temperature.

    The terms, before their weights, differ by orders of magnitude: they are drawn over their values in the first epoch.
    """
    figure, (balanced, long_tailed, terms, temperature) = new_figure(2, 2)
    students = {name: title for name, title in TITLES.items() if name != 'teacher'}
    _draw_accuracies(balanced, results, students)
    balanced.set_title(f'balanced, {results["kd"].train_images} training images')
    _draw_accuracies(long_tailed, results, LONG_TAILED_TITLES, first_style=1)
    long_tailed.set_title(f'long-tailed, {results["longtailed_kd"].train_images} training images')
    epochs = results['trg'].history
    for position, (name, label) in enumerate(leaf_terms(epochs).items()):
        first = epochs[0]['terms'][name]
        ratios = [line['terms'][name] / first for line in epochs]
        draw_line(terms, ratios, f'{label} (from {first:.3g})', position)
    finish_epochs(terms, 'mean of the term / first epoch')
    terms.legend(frameon=False, fontsize='small')
    terms.set_title('KD + TRG: terms of the loss')
    draw_line(temperature, [line['temperature'] for line in epochs], 'temperature', 0)
    finish_epochs(temperature, 'temperature of the global term')
    temperature.set_ylim(bottom=0)
    temperature.set_title('KD + TRG: dynamic temperature')
    return figure


def _draw_accuracies(
    axes: Axes, results: Mapping[str, RunResult], titles: Mapping[str, str], first_style: int = 0
) -> None:
    """Draws the validation top-1 of each run, and the teacher's; a method has its style in both panels."""
    teacher = results['teacher'].history[-1]['best_val_top1']
    axes.axhline(teacher, color=REFERENCE_COLOR, linestyle=':', linewidth=1.2, label='teacher')
    for position, (name, title) in enumerate(titles.items(), first_style):
        draw_line(axes, [line['val_top1'] for line in results[name].history], title, position)
    finish_epochs(axes, 'validation top-1, %')
    axes.legend(frameon=False, fontsize='small')


def _verdict(results: Mapping[str, RunResult]) -> list[str]:
    """Says what was measured, and how little one seed proves."""
    gain = results['trg'].test['top1'] - results['kd'].test['top1']
    tail_gain = results['longtailed_trg'].test['top1'] - results['longtailed_kd'].test['top1']
    slower = results['trg'].milliseconds_a_step / results['kd'].milliseconds_a_step - 1
    noise = max(_noise(results['kd'], results['trg']), _noise(results['longtailed_kd'], results['longtailed_trg']))
    return [
        f'KD + TRG minus KD: top-1 {gain:+.2f}, long-tailed {tail_gain:+.2f} points; step time {100 * slower:+.0f} %.',
        f'One seed is no proof: on {results["kd"].test["n"]} images equal models differ by up to {noise:.1f} points by',
        'chance, and a new seed adds to that. Try --seed 1 --out demo_1, and so on.',
    ]


def _noise(one: RunResult, other: RunResult) -> float:
    """Two standard deviations of the difference of two accuracies in percent, each over its test images."""
    shares = [result.test['top1'] / 100 for result in (one, other)]
    counts = [result.test['n'] for result in (one, other)]
    return 200 * math.sqrt(sum(share * (1 - share) / count for share, count in zip(shares, counts, strict=True)))
