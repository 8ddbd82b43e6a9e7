"""`check` and `train` refuse a mistake in a YAML in the same words, before the first step, with the line to change."""

import re

import pytest
import torch
from agreement_rows import ROWS
from check_yaml import QUICK
from mistakes import FOUND_IN_THE_FIRST_STEP, MISTAKES
from mistakes_of_models import HOOKED
from tiny import CE, KD, SGD, STEP_LR, Blobs, stage, stages, tiny_net, whole_yaml, write
from torchdistill.optim.registry import OPTIM_DICT

from trg_torchdistill.cli.main import main

pytestmark = pytest.mark.slow

GOOD = stage(2, CE + KD, more=STEP_LR)
EVERY = MISTAKES | {name: (GOOD, *row) for name, row in ROWS.items()}
# Told of tags that `check` leaves alone, of the data, and of files, of which it warns.
OF_TRAIN_ALONE = {
    'unknown_tag',
    'no_training_batch',
    'teacher_without_its_file',
    'student_without_its_file',
    'stage_without_its_file',
}


def errors(tmp_path, capsys, text, first_step=False):
    """Exit code and message of `check` and of `train`, and what `train` said before; neither writes anything."""
    path = write(tmp_path, text)
    found = []
    for words in (['check', path, *QUICK], ['train', path]):
        code = main(words)
        out, err = capsys.readouterr()
        assert 'epoch 1' not in out
        assert 'Traceback' not in err
        if not first_step:
            assert [file.name for file in tmp_path.iterdir()] == ['config.yaml']
        found.append((code, err.replace(' (--traceback shows where)', '')))
    return (*found, out)


@pytest.mark.parametrize('name', EVERY)
def test_a_mistake_in_a_yaml(name, tmp_path, capsys):
    train, found, replacement, parts = EVERY[name]
    text = whole_yaml(tmp_path, train)
    assert found in text
    text = text.replace(found, replacement, 1) if found else text
    (check_code, check_error), (code, error), out = errors(tmp_path, capsys, text, name in FOUND_IN_THE_FIRST_STEP)
    if name not in OF_TRAIN_ALONE:
        assert check_code == (2 if name == 'yaml_syntax' else 1)
    assert code == 2
    for text in (error,) if name in OF_TRAIN_ALONE else (error, check_error):
        assert text.startswith('error: ')
        assert len(text.splitlines()) == 1
        assert [part for part in parts if part not in text] == [], text
    if name in ROWS:
        assert error == check_error
    elif name not in FOUND_IN_THE_FIRST_STEP:
        assert out == ''


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
    check, train, _ = errors(tmp_path, capsys, text)
    assert (check[0], train[0]) == (1, 2)
    assert check[1] == train[1]
    assert part in check[1]


def test_stages_without_the_second(tmp_path, capsys):
    one = stage(1, CE)
    text = whole_yaml(tmp_path, stages(one, one, one).replace('stage2:', 'old:'))
    check, train, _ = errors(tmp_path, capsys, text)
    assert (check[0], train[0]) == (1, 2)
    assert check[1] == train[1]
    assert 'to be stage1, stage2, got stage1, stage3' in check[1]


def test_the_loader_of_the_test_is_refused_before_the_training(tmp_path, capsys):
    before, after = whole_yaml(tmp_path, GOOD).split('\ntest:')
    check, train, _ = errors(tmp_path, capsys, f'{before}\ntest:{after.replace("num_workers: 0", "num_workers: -1")}')
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


def test_line_numbers_are_those_of_the_file(tmp_path, capsys):
    path = write(tmp_path, whole_yaml(tmp_path, stage(1, CE)).replace("key: 'SGD'", "key: 'Sgd'"))
    assert main(['train', path]) == 2
    line = int(re.search(r'\(line (\d+)\)', capsys.readouterr().err)[1])
    with open(path) as file:
        assert "key: 'Sgd'" in file.readlines()[line - 1]


def test_student_block_without_a_teacher(tmp_path, capsys):
    sides = "student: {forward_proc: 'forward_batch_only'}\n"
    assert main(['train', write(tmp_path, whole_yaml(tmp_path, stage(1, CE, sides=sides), teacher=False))]) == 2
    assert 'rename it to `model:`, or add `models.teacher_model`' in capsys.readouterr().err


def test_a_mistake_in_a_later_stage_is_found_before_the_first(tmp_path, capsys):
    later = stage(1, CE + KD, loaders='', sides=HOOKED)
    assert main(['train', write(tmp_path, whole_yaml(tmp_path, stages(stage(1, CE), later)))]) == 2
    assert '`train.stage2.student.forward_hook.output`' in capsys.readouterr().err


def test_weights_that_do_not_fit_are_refused(tmp_path, capsys):
    weights = tmp_path / 'teacher.pt'
    torch.save(tiny_net(width=5).state_dict(), weights)
    text = whole_yaml(tmp_path, stage(1, CE)).replace('src_ckpt: }', f'src_ckpt: {weights}}}')
    assert main(['train', write(tmp_path, text)]) == 2
    assert '`models.teacher_model.src_ckpt` (line 9) to hold weights of `tiny_net`' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('words', 'part'),
    [
        (['--device', 'tpu9'], 'expected `--device` to be cpu, cuda, cuda:0, ... or auto, got tpu9, RuntimeError: '),
        (
            ['--device', 'hpu'],
            'expected `--device` to be cpu, cuda, cuda:0, ... or auto, got hpu, ',
        ),
        (['--device', 'vulkan'], '... or auto, got vulkan, NotImplementedError: Could not run'),
        (['--device', 'meta'], 'expected `--device` to be cpu, cuda, cuda:0, ... or auto, got meta, '),
        (['--device', ''], 'expected `--device` to be cpu, cuda, cuda:0, ... or auto, got , RuntimeError: '),
        (['--resume'], 'start without `--resume`'),
        (['--resume', '--start_epoch', '2'], 'expected either `--resume` or `--start_epoch`, got both'),
        (['-test_only'], 'to hold the weights to test'),
    ],
)
def test_mistakes_on_the_command_line(words, part, tmp_path, capsys):
    assert main(['train', write(tmp_path, whole_yaml(tmp_path, stage(1, CE))), *words]) == 2
    assert part in capsys.readouterr().err


def test_missing_file(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(['train', 'nowhere.yaml']) == 2
    assert capsys.readouterr().err == (
        f'error: expected CONFIG to be a YAML file, got nowhere.yaml (looked for in {tmp_path}), which does not exist '
        'or is no file\n'
    )


def test_start_epoch_in_stages(tmp_path, capsys):
    text = stages(stage(1, CE, optimizer=SGD))
    assert main(['train', write(tmp_path, whole_yaml(tmp_path, text)), '--start_epoch', '1']) == 2
    assert 'continue a run with `--resume`' in capsys.readouterr().err


def test_several_processes_that_torchrun_did_not_start(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    config = write(tmp_path, whole_yaml(tmp_path, stage(1, CE)))
    assert main(['train', config]) == 2
    assert 'got WORLD_SIZE=2 without the variables that it sets' in capsys.readouterr().err
    assert main(['check', config]) == 2
    assert 'expected one process, got WORLD_SIZE=2; start this command without torchrun' in capsys.readouterr().err


def test_traceback_on_request(tmp_path, capsys):
    path = write(tmp_path, whole_yaml(tmp_path, stage(1, CE)).replace("key: 'SGD'", "key: 'SDG'"))
    assert main(['train', path, '--traceback']) == 2
    err = capsys.readouterr().err
    assert 'Traceback' in err
    assert err.splitlines()[-1].startswith('error: ')
