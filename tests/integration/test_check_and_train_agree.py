"""`check` and `train` refuse the same YAML in the same words, before the first step, with the line to change."""

import pytest
import torch
from agreement_rows import ROWS
from check_yaml import QUICK
from tiny import CE, KD, STEP_LR, Blobs, stage, stages, whole_yaml, write
from torchdistill.optim.registry import OPTIM_DICT

from trg_torchdistill.cli.main import main

GOOD = stage(2, CE + KD, more=STEP_LR)


def errors(tmp_path, capsys, text):
    """The exit codes and the messages of `check` and `train`."""
    path = write(tmp_path, text)
    found = []
    for words in (['check', path, *QUICK], ['train', path]):
        code = main(words)
        captured = capsys.readouterr()
        assert 'epoch 1' not in captured.out
        found.append((code, captured.err.replace(' (--traceback shows where)', '')))
    return found


@pytest.mark.parametrize('name', ROWS)
def test_both_refuse_it_in_the_same_words(name, tmp_path, capsys):
    line, instead, parts = ROWS[name]
    text = whole_yaml(tmp_path, GOOD)
    assert line in text
    (check_code, check_error), (train_code, train_error) = errors(tmp_path, capsys, text.replace(line, instead, 1))
    assert (check_code, train_code) == (1, 2)
    assert check_error == train_error
    assert [part for part in parts if part not in check_error] == [], check_error
    assert len(check_error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ['config.yaml']


@pytest.mark.parametrize(
    ('line', 'instead', 'part'),
    [
        ('lr: 0.05', 'lr: -1.0', 'change `train.stage2.optimizer.kwargs`'),
        ('batch_size: 8', 'batch_size: 0', '`train.stage2.train_data_loader`'),
        ('step_size: 1', 'step_size: 0', 'change `train.stage2.scheduler.kwargs`'),
    ],
)
def test_a_later_stage_is_refused_before_the_first(line, instead, part, tmp_path, capsys):
    one = stage(1, CE, more=STEP_LR)
    text = whole_yaml(tmp_path, stages(one, one.replace(line, instead)))
    check, train = errors(tmp_path, capsys, text)
    assert (check[0], train[0]) == (1, 2)
    assert check[1] == train[1]
    assert part in check[1]


def test_stages_without_the_second(tmp_path, capsys):
    one = stage(1, CE)
    text = whole_yaml(tmp_path, stages(one, one, one).replace('stage2:', 'old:'))
    check, train = errors(tmp_path, capsys, text)
    assert (check[0], train[0]) == (1, 2)
    assert check[1] == train[1]
    assert 'to be stage1, stage2, got stage1, stage3' in check[1]


def test_the_loader_of_the_test_is_refused_before_the_training(tmp_path, capsys):
    before, after = whole_yaml(tmp_path, GOOD).split('\ntest:')
    check, train = errors(tmp_path, capsys, f'{before}\ntest:{after.replace("num_workers: 0", "num_workers: -1")}')
    assert check[1] == train[1]
    assert 'change `test.test_data_loader.kwargs` (line 51)' in train[1]


def one_cycle(steps):
    return f"scheduler: {{key: 'OneCycleLR', kwargs: {{max_lr: 0.1, total_steps: {steps}}}, scheduling_step: 1}}\n"


def test_steps_of_a_schedule_are_counted_on_the_real_data(tmp_path, capsys):
    """24 images in batches of 8 are 3 steps an epoch, which only `train` knows."""
    path = write(tmp_path, whole_yaml(tmp_path, stage(2, CE, more=one_cycle(5))))
    assert main(['train', path]) == 2
    assert '`OneCycleLR` failed in scheduling step 6, ValueError: Tried to step 6 times' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['config.yaml']
    assert main(['train', write(tmp_path, whole_yaml(tmp_path, stage(2, CE, more=one_cycle(6))))]) == 0


@pytest.mark.parametrize(('steps', 'code'), [(4999, 1), (5001, 0)])
def test_a_long_schedule_is_stepped_at_its_end(steps, code, tmp_path, capsys):
    scheduler = one_cycle(steps).replace(', scheduling_step: 1', '')
    path = write(tmp_path, whole_yaml(tmp_path, stage(5000, CE, more=scheduler)))
    assert main(['check', path, *QUICK]) == code
    assert ('failed in epoch 5000' in capsys.readouterr().err) == (code == 1)


def test_optimizers_and_samplers_of_the_user_are_not_tried_on_stand_ins(tmp_path, monkeypatch, capsys):
    def needs_the_model(parameters, **kwargs):
        assert len(list(parameters)) > 1
        return torch.optim.SGD(parameters, **kwargs)

    class NeedsTheData(torch.utils.data.RandomSampler):
        def __init__(self, data):
            assert isinstance(getattr(data, 'org_dataset', data), Blobs)
            super().__init__(data)

    monkeypatch.setitem(OPTIM_DICT, 'own', needs_the_model)
    monkeypatch.setattr('tiny.NeedsTheData', NeedsTheData, raising=False)
    text = whole_yaml(tmp_path, GOOD).replace("'SGD'", "'own'")
    path = write(tmp_path, text.replace('torch.utils.data.RandomSampler', 'tiny.NeedsTheData'))
    assert main(['check', path, *QUICK]) == 0, capsys.readouterr().err
    assert main(['train', path]) == 0, capsys.readouterr().err


def test_a_term_may_have_a_number_as_its_name(tmp_path, capsys):
    path = write(tmp_path, whole_yaml(tmp_path, GOOD.replace('ce:\n', '1:\n')))
    assert main(['check', path, *QUICK]) == 0
    assert main(['train', path]) == 0
