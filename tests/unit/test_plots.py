import math
import sys

import pytest

from trg_torchdistill.cli.demo.report import draw_accuracy
from trg_torchdistill.cli.plot.curves import draw_temperature, draw_terms
from trg_torchdistill.cli.plot.figures import STYLES, new_figure
from trg_torchdistill.errors import TRGError


def epoch(number, val_top1=50.0, temperature=0.5, **terms):
    return {'epoch': number, 'val_top1': val_top1, 'temperature': temperature, 'terms': terms}


@pytest.fixture
def axes():
    figure, (panel,) = new_figure(1, 1)
    yield panel
    figure.canvas.draw()


def lines_of(axes):
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines}


def test_figures_do_not_touch_the_display_or_global_state(tmp_path):
    figure, panels = new_figure(2, 3)
    assert len(panels) == 6
    figure.savefig(tmp_path / 'empty.png')
    assert (tmp_path / 'empty.png').read_bytes()[:4] == b'\x89PNG'
    assert 'matplotlib.pyplot' not in sys.modules


def test_accuracies_start_at_epoch_one(axes):
    runs = {'KD': [epoch(0, 10.0), epoch(1, 20.0)], 'KD + TRG': [epoch(0, 12.0), epoch(1, 25.0)]}
    draw_accuracy(axes, runs, teacher=99.0)
    assert lines_of(axes) == {'teacher': [99.0, 99.0], 'KD': [10.0, 20.0], 'KD + TRG': [12.0, 25.0]}
    assert list(axes.lines[1].get_xdata()) == [1, 2]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ['teacher', 'KD', 'KD + TRG']
    assert (axes.get_xlabel(), axes.get_ylabel()) == ('epoch', 'validation top-1, %')


def test_a_single_epoch_is_visible(axes):
    draw_accuracy(axes, {'KD': [epoch(0, 10.0)]})
    assert axes.lines[0].get_marker() == 'o'


def test_lines_differ_in_colour_and_in_dashes(axes):
    draw_accuracy(axes, {f'run {number}': [epoch(0), epoch(1)] for number in range(len(STYLES))})
    assert len({line.get_color() for line in axes.lines}) == len(STYLES)
    assert len({str(dashes) for _, dashes in STYLES}) == len(STYLES)


def test_a_method_looks_the_same_in_two_panels():
    _, (one, other) = new_figure(1, 2)
    draw_accuracy(one, {'alone': [epoch(0)], 'KD': [epoch(0)]})
    draw_accuracy(other, {'KD': [epoch(0)]}, first_style=1)
    assert one.lines[1].get_color() == other.lines[0].get_color()


def test_terms_are_drawn_relative_to_the_first_epoch_and_parents_are_left_out(axes):
    history = [
        epoch(0, **{'kd': 4.0, 'trg': 9.0, 'trg.local': 6.0, 'trg.global': 3.0, 'contextual': 1e-3}),
        epoch(1, **{'kd': 1.0, 'trg': 6.0, 'trg.local': 3.0, 'trg.global': 3.0, 'contextual': 5e-4}),
    ]
    for line in history:
        line['terms']['contextual.contextual'] = line['terms']['contextual']
    draw_terms(axes, history)
    assert lines_of(axes) == {
        'kd (from 4)': [1.0, 0.25],
        'trg local (from 6)': [1.0, 0.5],
        'trg global (from 3)': [1.0, 1.0],
        'contextual (from 0.001)': [1.0, 0.5],
    }


def test_a_term_that_is_zero_or_missing_does_not_divide_by_zero(axes):
    draw_terms(axes, [epoch(0, a=0.0, b=0.0), epoch(1, a=2.0), epoch(2, a=1.0)])
    ((label, values),) = lines_of(axes).items()
    assert (label, values) == ('a (from 2)', [0.0, 1.0, 0.5])


def test_terms_of_a_later_stage_start_later(axes):
    draw_terms(axes, [epoch(0, a=1.0), epoch(1, b=2.0)])
    lines = lines_of(axes)
    assert lines['a (from 1)'][0] == lines['b (from 2)'][1] == 1.0
    assert math.isnan(lines['b (from 2)'][0])
    assert math.isnan(lines['a (from 1)'][1])


def test_one_temperature_and_several(axes):
    draw_temperature(axes, [epoch(0, temperature=0.5), epoch(1, temperature=0.1)])
    assert lines_of(axes) == {'temperature': [0.5, 0.1]}
    assert axes.get_legend() is None


def test_several_temperatures_get_a_line_each(axes):
    draw_temperature(axes, [epoch(0, temperature={'a': 0.5, 'b': 1.0}), epoch(1, temperature={'a': 0.4, 'b': 0.9})])
    assert lines_of(axes) == {'a': [0.5, 0.4], 'b': [1.0, 0.9]}


def test_a_run_without_trg_has_no_temperature(axes):
    draw_temperature(axes, [epoch(0, temperature=None)])
    assert all(math.isnan(value) for values in lines_of(axes).values() for value in values)


def test_the_extra_that_brings_matplotlib_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
    with pytest.raises(TRGError, match=r"pip install 'trg_torchdistill\[cli\]'"):
        new_figure(1, 1)
