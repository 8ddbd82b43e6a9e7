"""Each usual mistake in a YAML or on the command line gives one message with the line to change, and exit code 2."""

import re

import pytest
import torch
from mistakes import FOUND_IN_THE_FIRST_STEP, MISTAKES, SGD_KEY
from mistakes_of_models import HOOKED
from tiny import CE, KD, SGD, stage, tiny_net, whole_yaml, write

from trg_torchdistill.cli.main import main


@pytest.mark.parametrize('name', MISTAKES)
def test_mistakes_in_a_yaml(name, tmp_path, capsys):
    text, found, replacement, parts = MISTAKES[name]
    text = whole_yaml(tmp_path, text)
    assert found in text
    assert main(['train', write(tmp_path, text.replace(found, replacement, 1) if found else text)]) == 2
    out, err = capsys.readouterr()
    assert err.startswith('error: ')
    assert len(err.splitlines()) == 1
    assert [part for part in parts if part not in err] == [], err
    assert 'Traceback' not in err
    if name not in FOUND_IN_THE_FIRST_STEP:
        assert [path.name for path in tmp_path.iterdir()] == ['config.yaml']
        assert out == ''


def test_line_numbers_are_those_of_the_file(tmp_path, capsys):
    path = write(tmp_path, whole_yaml(tmp_path, stage(1, CE)).replace(SGD_KEY, "key: 'Sgd'"))
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
    text = f'stage1:\n{_indent(stage(1, CE))}stage2:\n{_indent(later)}'
    assert main(['train', write(tmp_path, whole_yaml(tmp_path, text))]) == 2
    assert '`train.stage2.student.forward_hook.output`' in capsys.readouterr().err


def _indent(text):
    return ''.join(f'  {line}\n' for line in text.splitlines())


@pytest.mark.parametrize('content', ['nothing', 'text', 'other_model'])
def test_weights_that_do_not_fit_are_refused(content, tmp_path, capsys):
    weights = tmp_path / 'teacher.pt'
    if content == 'other_model':
        torch.save(tiny_net(width=5).state_dict(), weights)
    else:
        weights.write_text('' if content == 'nothing' else 'hello')
    text = whole_yaml(tmp_path, stage(1, CE)).replace('src_ckpt: }', f'src_ckpt: {weights}}}')
    assert main(['train', write(tmp_path, text)]) == 2
    assert '`models.teacher_model.src_ckpt` (line 9) to hold weights of `tiny_net`' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('words', 'part'),
    [
        (['--device', 'tpu9'], 'expected `--device` to be cpu, cuda, cuda:0, ... or auto, got tpu9, RuntimeError: '),
        (
            ['--device', 'hpu'],
            'expected `--device` to be cpu, cuda, cuda:0, ... or auto, got hpu, ModuleNotFoundError: ',
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
    text = f'stage1:\n{_indent(stage(1, CE, optimizer=SGD))}'
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
