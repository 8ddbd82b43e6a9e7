import io
import sys

import pytest

from trg_torchdistill.cli.runtime.progress import BarReporter, PlainReporter, choose_reporter, clock, epoch_line, fitted
from trg_torchdistill.cli.train.metrics import TermMeter


class Terminal(io.StringIO):
    def isatty(self):
        return True


def line_for(**changes):
    line = {'epoch': 98, 'loss': 1.23456789, 'val_top1': 100.0, 'val_top5': 100.0, 'best_val_top1': 100.0}
    return {**line, 'seconds': {'train': 3000.0, 'val': 600.0}, 'images_per_second': 12345.6, **changes}


@pytest.mark.parametrize('changes', [{}, {'loss': 1.2345e-08}, {'loss': 98765.4321}, {'epoch': 0}])
def test_an_epochs_line_fits_into_a_hundred_columns(changes):
    text = epoch_line(line_for(**changes), 300)
    assert len(text) <= 100
    assert f'{changes.get("epoch", 98) + 1}/300' in text


def test_an_epochs_line_tells_the_time_left():
    assert epoch_line(line_for(), 100).endswith('12346 img/s  1:00:00 left')


@pytest.mark.parametrize(('seconds', 'text'), [(0.4, '0:00:00'), (61, '0:01:01'), (36_001, '10:00:01')])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_terms_that_do_not_fit_are_left_out():
    terms = {'ce': 1.0, 'kd': 2.0}
    assert fitted('loss 3', terms, 80) == 'loss 3  ce 1  kd 2'
    assert fitted('loss 3', terms, 13) == 'loss 3  ce 1'
    assert fitted('loss 3', terms, 3) == 'loss 3'


def test_a_pipe_gets_plain_lines(monkeypatch, capsys):
    reporter = choose_reporter()
    assert isinstance(reporter, PlainReporter)
    reporter.start_epoch(0, 1, 1)
    reporter.step(1.0, 8, dict)
    reporter.end_epoch()
    reporter.say('hello')
    assert capsys.readouterr().out == 'hello\n'


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setattr(sys, 'stdout', Terminal())
    monkeypatch.setenv('COLUMNS', '100')
    monkeypatch.setenv('TERM', 'xterm')
    reporter = choose_reporter()
    assert isinstance(reporter, BarReporter)
    for epoch in range(2):
        reporter.start_epoch(epoch, 2, 3)
        reporter.step(1.25, 8, TermMeter(None))
        reporter.end_epoch()
    shown = sys.stdout.getvalue()
    assert 'epoch 1/2' in shown
    assert 'loss 1.25' in shown
    assert 'img/s' in shown


def test_a_terminal_without_rich_gets_plain_lines_and_a_hint(monkeypatch):
    monkeypatch.setattr(sys, 'stdout', Terminal())
    monkeypatch.setitem(sys.modules, 'rich.progress', None)
    assert isinstance(choose_reporter(), PlainReporter)
    assert "pip install 'trg_torchdistill[cli]'" in sys.stdout.getvalue()
