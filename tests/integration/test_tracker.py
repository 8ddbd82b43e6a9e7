"""`tracker:` of a YAML: `train` logs under torchdistill's names and steps, and always finishes."""

import sys
import types

import pytest
import tiny
from tiny import CE, QUICK, stage, stages, whole_yaml, write
from torchdistill.misc import log

from trg_torchdistill.cli.main import main

BLOCK = "tracker:\n  engine: 'wandb'\n  kwargs: {project: 'kd'}\n"


class Wandb(types.ModuleType):
    """What torchdistill calls of wandb; it notes what it gets."""

    def __init__(self):
        super().__init__('wandb')
        self.calls = []

    def init(self, **kwargs):
        self.calls.append(('init', kwargs))

    def log(self, values, step):
        self.calls.append((step, values))

    def finish(self):
        self.calls.append(('finish',))


@pytest.fixture
def wandb(monkeypatch):
    if not hasattr(log, 'setup_tracker'):
        pytest.skip('torchdistill < 1.1.5')
    monkeypatch.setitem(sys.modules, 'wandb', Wandb())
    return sys.modules['wandb']


def tracked_yaml(folder, train):
    return write(folder, BLOCK + whole_yaml(folder, train))


def test_steps_and_epochs_are_logged_as_torchdistill_does(tmp_path, wandb):
    path = write(tmp_path, BLOCK + whole_yaml(tmp_path, stage(2, CE)).replace('log_freq: 10', 'log_freq: 2'))
    assert main(['train', path]) == 0
    (_, options), *logged, last = wandb.calls
    assert options['project'] == 'kd'
    assert options['config']['datasets']['train'] == {'key': 'tiny.Blobs', 'init': {'kwargs': {'size': 24}}}
    step, epoch = {'train/loss', 'train/lr', 'train/img/s'}, {'val/acc1', 'val/acc5', 'epoch'}
    expected = [(0, step), (2, step), (3, epoch), (3, step), (5, step), (6, epoch)]
    assert [(number, set(values)) for number, values in logged] == expected
    assert [values['epoch'] for _, values in logged if 'epoch' in values] == [0, 1]
    assert logged[0][1]['train/lr'] == 0.05
    assert last == ('finish',)


def test_steps_go_on_over_stages_and_after_resume(tmp_path, wandb, monkeypatch):
    path = tracked_yaml(tmp_path, stages(stage(1, CE), stage(2, CE.replace('weight: 1.0', 'weight: 2.0'))))
    monkeypatch.setattr(tiny, 'items_until_interrupt', 72)
    assert main(['train', path]) == 130
    assert wandb.calls[-1] == ('finish',)
    monkeypatch.setattr(tiny, 'items_until_interrupt', None)
    assert main(['train', path, '--resume']) == 0
    assert [call[0] for call in wandb.calls if call[0] != 'init'] == [0, 3, 3, 6, 6, 'finish', 6, 9, 'finish']


@pytest.mark.parametrize('block', ['tracker:\n', 'tracker: {engine: }\n', ''])
def test_without_an_engine_nothing_is_tracked(block, tmp_path, wandb):
    assert main(['train', write(tmp_path, block + whole_yaml(tmp_path, stage(1, CE)))]) == 0
    assert wandb.calls == []


def test_check_knows_the_block_and_starts_nothing(tmp_path, wandb, capsys):
    assert main(['check', tracked_yaml(tmp_path, stage(1, CE)), *QUICK]) == 0
    assert 'tracker' not in capsys.readouterr().out
    assert wandb.calls == []


def test_a_missing_package_is_told_before_anything_is_written(tmp_path, wandb, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'wandb', None)
    path = tracked_yaml(tmp_path, stage(1, CE))
    assert main(['check', path, *QUICK]) == 1
    assert main(['train', path]) == 2
    assert capsys.readouterr().err.count('`tracker.engine` (line 2) cannot be imported') == 2
    assert [file.name for file in tmp_path.iterdir()] == ['config.yaml']
    assert main(['train', path, '-test_only']) == 2
    assert 'to hold the weights to test' in capsys.readouterr().err


def test_an_engine_that_does_not_start_leaves_no_run_behind(tmp_path, wandb, monkeypatch, capsys):
    def refuse(**kwargs):
        raise ConnectionError('no route to the server')

    monkeypatch.setattr(wandb, 'init', refuse)
    assert main(['train', tracked_yaml(tmp_path, stage(1, CE))]) == 2
    assert '`tracker` (line 1) cannot be started, ConnectionError: no route' in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ['config.yaml']


def test_it_is_finished_after_an_error(tmp_path, wandb):
    text = stage(2, CE + "late: {criterion: {key: 'LateNan', kwargs: {step: 4}}, weight: 1.0}\n")
    assert main(['train', tracked_yaml(tmp_path, text)]) == 1
    assert wandb.calls[-1] == ('finish',)


def test_an_older_torchdistill_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'wandb', Wandb())
    monkeypatch.delattr(log, 'setup_tracker', raising=False)
    path = tracked_yaml(tmp_path, stage(1, CE))
    assert main(['check', path, *QUICK]) == 1
    assert main(['train', path]) == 2
    err = capsys.readouterr().err
    assert err.count('expected torchdistill 1.1.5 or later for `tracker` (line 1), got ') == 2
