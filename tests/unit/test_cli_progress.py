import io
import re
import sys

import pytest

from trg_torchdistill.cli.runtime import progress
from trg_torchdistill.cli.runtime.progress import BarReporter, Reporter, choose_reporter, epoch_line


class Terminal(io.StringIO):
    def isatty(self):
        return True


def line_for(**changes):
    line = {'epoch': 98, 'loss': 1.23456789, 'val_top1': 100.0, 'val_top5': 100.0, 'best_val_top1': 100.0}
    return {**line, 'seconds': {'train': 3000.0, 'val': 600.0}, 'images_per_second': 12345.6, **changes}


@pytest.mark.parametrize(
    ('changes', 'left'),
    [
        ({}, '201:00:00'),
        ({'loss': 1.2345e-08}, '201:00:00'),
        ({'loss': 98765.4321}, '201:00:00'),
        ({'epoch': 298, 'seconds': {'train': 60.7, 'val': 0.7}}, '0:01:01'),
        ({'epoch': 299}, '0:00:00'),
    ],
)
def test_an_epochs_line_fits_into_a_hundred_columns_and_tells_the_time_left(changes, left):
    text = epoch_line(line_for(**changes), 300)
    assert len(text) <= 100
    assert f'{changes.get("epoch", 98) + 1}/300' in text
    assert text.endswith(f' 12346 img/s  {left} left')


def test_a_pipe_gets_plain_lines(capsys):
    reporter = choose_reporter()
    assert type(reporter) is Reporter
    reporter.start_epoch(0, 1, 1)
    reporter.step(1.0, 8, dict)
    reporter.end_epoch()
    reporter.say('hello')
    assert capsys.readouterr().out == 'hello\n'


@pytest.mark.parametrize(('columns', 'terms'), [('200', 'kd=2 trg.local=0.125'), ('80', 'kd=2'), ('65', '')])
def test_a_terminal_gets_a_bar_with_the_terms_that_fit(columns, terms, monkeypatch):
    monkeypatch.setattr(sys, 'stdout', Terminal())
    monkeypatch.setattr(progress, 'SECONDS_BETWEEN_UPDATES', 0)
    monkeypatch.setenv('COLUMNS', columns)
    reporter = choose_reporter()
    assert isinstance(reporter, BarReporter)
    for epoch in range(2):
        reporter.start_epoch(epoch, 2, 3)
        reporter.step(1.25, 8, lambda: {'kd': 2.0, 'trg.local': 0.125})
        reporter.end_epoch()
    reporter.say('hello')
    bars = sys.stdout.getvalue().split('\r')
    assert bars[-1] == 'hello\n'
    for number in (1, 2):
        (full,) = {bar.rstrip() for bar in bars if f'epoch {number}/2 1/3 ' in bar}
        assert re.search(r' \d+ img/s \d:\d\d:\d\d left loss 1.25' + f'{" " * bool(terms)}{terms}$', full)


def test_a_bar_is_drawn_at_most_twice_a_second(monkeypatch):
    monkeypatch.setattr(sys, 'stdout', Terminal())
    reporter = choose_reporter()
    reporter.start_epoch(0, 1, 3)
    reporter.step(1.25, 8, lambda: pytest.fail('the terms were read'))
    reporter.end_epoch()


def test_a_terminal_without_tqdm_gets_plain_lines_and_a_hint(monkeypatch):
    monkeypatch.setattr(sys, 'stdout', Terminal())
    monkeypatch.setitem(sys.modules, 'tqdm', None)
    assert type(choose_reporter()) is Reporter
    assert "pip install 'trg_torchdistill[cli]'" in sys.stdout.getvalue()
