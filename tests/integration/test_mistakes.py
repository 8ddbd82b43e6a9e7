"""`check` and `train` refuse a mistake in a YAML in the same words, before the first step, with the line to change."""

import pytest
import torch
from mistakes import (
    FOUND_IN_THE_FIRST_STEP,
    GOOD,
    MISTAKES,
    NEARLY_THE_SAME_WORDS,
    ONE,
    TABLES,
    TOLD_BY_TRAIN_ALONE,
)
from tiny import CE, QUICK, Blobs, stage, stages, tiny_net, whole_yaml, write
from torchdistill.models.registry import register_model
from torchdistill.optim.registry import OPTIM_DICT

from trg_torchdistill.cli.main import main
from trg_torchdistill.errors import TRGError

pytestmark = pytest.mark.slow


def test_no_mistake_stands_in_two_tables():
    assert len(MISTAKES) == sum(map(len, TABLES))


@pytest.mark.parametrize('name', MISTAKES)
def test_a_mistake_in_a_yaml(name, tmp_path, capsys):
    found, instead, parts, train = MISTAKES[name]
    text = whole_yaml(tmp_path, train)
    assert found in text
    text = text.replace(found, instead, 1) if found else text
    path = write(tmp_path, text)
    check_code, check_error = main(['check', path, *QUICK]), capsys.readouterr().err
    assert main(['train', path]) == 2
    out, error = (said.replace(' (--traceback shows where)', '') for said in capsys.readouterr())
    assert error.startswith('error: ')
    assert len(error.splitlines()) == 1
    assert [part for part in parts if part not in error] == [], error
    if name in NEARLY_THE_SAME_WORDS:
        assert [part for part in parts if part not in check_error] == [], check_error
    elif name not in TOLD_BY_TRAIN_ALONE:
        assert check_error.replace(' (--traceback shows where)', '') == error
    if name not in TOLD_BY_TRAIN_ALONE:
        assert check_code == (2 if name == 'YAML syntax' else 1)
    if name in FOUND_IN_THE_FIRST_STEP:
        assert 'epoch 1' not in out
    else:
        assert out == ''
        assert [file.name for file in tmp_path.iterdir()] == ['config.yaml']


class OddError(Exception):
    """An exception class of the user's own."""


RAISED = {
    'OddError': (OddError, ', OddError: no message'),
    'KeyError': (lambda: KeyError('depth'), ", KeyError: 'depth'"),
    'TRGError': (lambda: TRGError('expected `width` to be even'), ': expected `width` to be even'),
}
REFUSES_ITS_ARGUMENTS = '`refusing_net` refused its arguments{}; change `models.student_model.kwargs` (line 12)'
REFUSES_A_BATCH = '`refusing_net` refused a batch of shape [2, 3, 8, 8]{}'
FAILS = 'the student `TinyNet` failed on the images [1, 3, 8, 8] float32 of `datasets.val` (line 7){}'


@register_model
def refusing_net(name, when, **kwargs):
    def refuse(*_):
        raise RAISED[name][0]()

    model = tiny_net(**kwargs)
    if when == 'built':
        refuse()
    model.register_forward_pre_hook(refuse)
    return model


REFUSALS = [
    (['add', '--diff', '--input-size', '8'], 2, 'built', REFUSES_ITS_ARGUMENTS),
    (['add', '--diff', '--input-size', '8'], 2, 'run', REFUSES_A_BATCH),
    (['check', *QUICK], 1, 'built', REFUSES_ITS_ARGUMENTS),
    (['check', *QUICK], 1, 'run', REFUSES_A_BATCH),
    (['train'], 2, 'built', REFUSES_ITS_ARGUMENTS),
    (['train'], 2, 'run', FAILS),
]


@pytest.mark.parametrize(
    ('words', 'code', 'when', 'message', 'name'),
    [
        pytest.param(*row, name, id=f'{row[0][0]}, {row[2]}, {name}')
        for row in REFUSALS
        for name in RAISED
        if (row[3], name) != (FAILS, 'TRGError')
    ],
)
def test_whatever_a_model_raises_is_told_with_the_place(words, code, when, message, name, tmp_path, capsys):
    kwargs = f"key: 'refusing_net'\n    kwargs: {{width: 4, name: '{name}', when: '{when}'}}"
    text = whole_yaml(tmp_path, GOOD).replace("key: 'tiny_net'\n    kwargs: {width: 4}", kwargs)
    assert main([words[0], write(tmp_path, text), *words[1:]]) == code
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert message.format(RAISED[name][1]) in line


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


def test_weights_that_do_not_fit_are_refused(tmp_path, capsys):
    weights = tmp_path / 'teacher.pt'
    torch.save(tiny_net(width=5).state_dict(), weights)
    text = whole_yaml(tmp_path, stage(1, CE)).replace('src_ckpt: }', f'src_ckpt: {weights}}}')
    assert main(['train', write(tmp_path, text)]) == 2
    assert '`models.teacher_model.src_ckpt` (line 9) to hold weights of `tiny_net`' in capsys.readouterr().err


DEVICE = 'expected `--device` to be cpu, cuda, cuda:0, ... or auto, got '


@pytest.mark.parametrize(
    ('train', 'words', 'part'),
    [
        (ONE, ['--device', 'tpu9'], f'{DEVICE}tpu9, RuntimeError: '),
        (ONE, ['--device', 'hpu'], f'{DEVICE}hpu, '),
        (ONE, ['--device', 'vulkan'], f'{DEVICE}vulkan, NotImplementedError: Could not run'),
        (ONE, ['--device', 'meta'], f'{DEVICE}meta, '),
        (ONE, ['--device', ''], f'{DEVICE}, RuntimeError: '),
        (ONE, ['--resume'], 'start without `--resume`'),
        (ONE, ['--resume', '--start_epoch', '2'], 'expected either `--resume` or `--start_epoch`, got both'),
        (stages(ONE), ['--start_epoch', '1'], 'continue a run with `--resume`'),
        (ONE, ['-test_only'], 'to hold the weights to test'),
    ],
)
def test_mistakes_on_the_command_line(train, words, part, tmp_path, capsys):
    assert main(['train', write(tmp_path, whole_yaml(tmp_path, train)), *words]) == 2
    assert part in capsys.readouterr().err


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
