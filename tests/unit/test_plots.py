"""What the curves show: lines, colours, labels and panels."""

import json
import math
import sys
from pathlib import Path

import pytest

from trg_torchdistill.cli.plot.command import _labels
from trg_torchdistill.cli.plot.curves import draw_curves, read_run
from trg_torchdistill.cli.plot.figures import STYLES, draw_line, new_figure, save_figure
from trg_torchdistill.errors import TRGError


def epoch(**values):
    return {'val_top1': 50.0, 'loss': 1.0, 'terms': {}, **values}


def panels_of(figure):
    return {axes.get_ylabel(): axes for axes in figure.axes if axes.axison}


def lines_of(axes):
    return [(line.get_label(), list(line.get_ydata())) for line in axes.lines]


def test_figures_do_not_touch_the_display_or_global_state(tmp_path):
    figure, panels = new_figure(2, 3)
    assert len(panels) == 6
    save_figure(figure, tmp_path / 'empty.png', dpi=50)
    assert (tmp_path / 'empty.png').read_bytes()[:4] == b'\x89PNG'
    assert 'matplotlib.pyplot' not in sys.modules


def test_curves_have_a_line_for_each_run_and_part():
    runs = {
        'KD': [epoch(terms={'kd': 1.0}, lr=0.1), epoch(terms={'kd': 0.5}, lr=0.2)],
        'TRG': [
            epoch(terms={'kd': 2.0, 'trg': 5.0, 'trg.local': 3.0}, temperature={'a': 0.5, 'b': 0.4}, lr=[0.1, 0.2])
        ],
    }
    figure = draw_curves(runs)
    panels = panels_of(figure)
    assert {label: lines_of(axes) for label, axes in panels.items()} == {
        'validation top-1, %': [('KD', [50, 50]), ('TRG', [50])],
        'training loss': [('KD', [1, 1]), ('TRG', [1])],
        'term: kd': [('KD', [1, 0.5]), ('TRG', [2])],
        'term: trg local': [('TRG', [3])],
        'temperature': [('TRG', [0.5]), ('TRG', [0.4])],
        'learning rate': [('KD', [0.1, 0.2]), ('TRG', [0.1]), ('TRG', [0.2])],
    }
    top1 = panels['validation top-1, %']
    assert (top1.get_xlabel(), list(top1.lines[0].get_xdata())) == ('epoch', [1, 2])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ['KD', 'TRG']
    assert top1.lines[1].get_color() == panels['term: trg local'].lines[0].get_color() == STYLES[1][0]
    assert [line.get_marker() for line in top1.lines] == ['None', 'o']  # a single epoch is visible
    assert panels['temperature'].get_ylim()[0] == 0


def test_terms_of_a_later_stage_start_later_and_parents_are_left_to_their_parts():
    history = [epoch(terms={'a': 1.0, 'b': 4.0}), epoch(terms={'b.b': 2.0}), epoch(terms={'b.c': 3.0})]
    panels = panels_of(draw_curves({'run': history}))
    assert [label for label in panels if label.startswith('term')] == ['term: a', 'term: b', 'term: b c']
    values = lines_of(panels['term: b c'])[0][1]
    assert [math.isnan(value) for value in values] == [True, True, False]


def test_many_lines_differ_in_colour_or_dashes():
    _, [axes] = new_figure(1, 1)
    for position in range(len(STYLES) ** 2):
        draw_line(axes, [1.0, 2.0], '', position)
    looks = [(line.get_color(), str(line._unscaled_dash_pattern)) for line in axes.lines]
    assert len(set(looks)) == len(looks)
    assert [len(set(each)) for each in zip(*looks[: len(STYLES)], strict=True)] == [len(STYLES)] * 2


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (None, 'with a metrics.jsonl, got none there; name what'),
        ('', 'to hold a finished epoch, got none yet'),
        ('{"epoch": 0', 'to be JSON, got: .* remove the damaged line'),
        ('{"loss": 1.0}\n', 'line 1 of .* got one without val_top1, terms'),
        ('[]\n', 'line 1 of .* got one without val_top1, loss, terms'),
    ],
)
def test_a_folder_without_a_readable_run(text, message, tmp_path):
    if text is not None:
        (tmp_path / 'metrics.jsonl').write_text(text)
    with pytest.raises(TRGError, match=message):
        read_run(tmp_path)


def test_a_run_is_read(tmp_path):
    epochs = [epoch(loss=float(number)) for number in range(3)]
    (tmp_path / 'metrics.jsonl').write_text(''.join(json.dumps(each) + '\n' for each in epochs))
    assert read_run(tmp_path) == epochs


@pytest.mark.parametrize(
    ('given', 'paths', 'expected'),
    [
        (None, ['trg-0.1', 'trg-0.3'], ['trg-0.1', 'trg-0.3']),
        (None, ['/x/kd.pt', '/x/trg.pt'], ['kd', 'trg']),
        (None, ['/x/kd/r.pt', '/x/trg/r.pt'], ['kd/r', 'trg/r']),
        (['a', 'b'], ['x', 'y'], ['a', 'b']),
        (['a'], ['x', 'y'], 'expected `--labels` to be 2 different names, one for each of the files'),
        (['a', 'a'], ['x', 'y'], 'expected `--labels` to be 2 different names, one for each of the files'),
        (None, ['x', './x'], 'got one of them twice'),
    ],
)
def test_labels_are_as_long_as_it_takes_to_tell_runs_apart(given, paths, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ('trg-0.1', 'trg-0.3'):
        Path(folder).mkdir()
    if isinstance(expected, list):
        assert _labels(given, [*map(Path, paths)], 'files') == expected
        return
    with pytest.raises(TRGError, match=expected):
        _labels(given, [*map(Path, paths)], 'files')
