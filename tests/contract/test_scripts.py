"""Scripts that the documentation names and no other test runs."""

import contextlib
import runpy
import sys

import loss_table
from documents import ROOT
from loss_table import EVERY


def run(monkeypatch, capsys, script, *words):
    """What a script prints."""
    monkeypatch.setattr(sys, 'argv', [script, *words])
    with contextlib.suppress(SystemExit):
        runpy.run_path(str(ROOT / script), run_name='__main__')
    return capsys.readouterr().out.splitlines()


def test_the_table_of_errors_has_a_row_of_each_loss(monkeypatch, capsys):
    few = {name: EVERY[name] for name in ('contextual', 'contextual, batchmean')}
    monkeypatch.setattr(loss_table, 'EVERY', few)
    _, _, *rows = run(monkeypatch, capsys, 'tests/exactness.py', '--seeds', '1')
    assert len(rows) == len(few)
    for row in rows:
        name, *errors = row.strip('| ').split(' | ')
        assert name in few
        assert max(map(float, errors[:2])) < 1e-9
        assert max(map(float, errors[2:])) < 1e-3


def test_the_matrix_lists_every_version_for_each_interpreter_that_is_here(monkeypatch, capsys):
    names = [line.split()[0] for line in run(monkeypatch, capsys, 'tools/matrix.py', '--list')]
    versions = {name.partition('-')[2] for name in names}
    pythons = {name.partition('-')[0] for name in names}
    assert f'py3.{sys.version_info.minor}' in pythons
    assert sorted(names) == sorted(f'{python}-{version}' for python in pythons for version in versions)
