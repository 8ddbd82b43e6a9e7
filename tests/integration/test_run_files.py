"""Files that a run would write over what it reads, or over one another, are refused before the first step."""

import json
import os
from pathlib import Path

import pytest
import tiny
import torch
from tiny import CE, KD, SIDES, TRG, TRG_SIDES, stage, stages, train, whole_yaml, write

from trg_torchdistill.cli.main import main

NO_WRAPPER = stage(1, CE + KD)
WRAPPED = stage(1, CE + TRG, sides=TRG_SIDES)
TWO_STAGES = stages(NO_WRAPPER, stage(1, CE, loaders=''))


def case(*parts, text=NO_WRAPPER, student='PATH/student.pt', words=''):
    """Text of `train:`, the student's `dst_ckpt:`, words of the command line, and parts of the message."""
    return text, student, words.split(), parts


def projections(file):
    return WRAPPED.replace('{projectors', f"{{projector_ckpt: 'PATH/{file}', projectors")


ALSO_TEACHER = 'also `models.teacher_model.src_ckpt`'
LOG = 'expected `--run_log` to be a file of its own'
COLLISIONS = {
    'teacher': case('student_model.dst_ckpt` (line 14)', 'teacher_model.src_', student='PATH/teacher.pt'),
    'other spelling': case(ALSO_TEACHER, student='PATH/../FOLDER/teacher.pt'),
    'link': case(ALSO_TEACHER, student='PATH/link.pt'),
    'hard link': case(ALSO_TEACHER, student='PATH/hard.pt'),
    'home': case(ALSO_TEACHER, student='~/teacher.pt'),
    'yaml': case('which is also the YAML itself', student='PATH/config.yaml', words='--run_dir PATH/run'),
    'teacher of a stage': case(
        'which is also `train.teacher.src_ckpt` (line',
        text=NO_WRAPPER.replace('teacher: {', "teacher: {src_ckpt: 'PATH/other.pt', "),
        student='PATH/other.pt',
    ),
    'projections': case(
        'kwargs.projector_ckpt` (line',
        'which is also `models.student_model.dst_ckpt` (line 14)',
        text=projections('student.pt'),
    ),
    'projections over the teacher': case(
        'kwargs.projector_ckpt` (line',
        'which is also `models.teacher_model.src_ckpt` (line 9)',
        text=projections('teacher.pt'),
    ),
    'teacher of stages': case(
        'expected `train.teacher.dst_ckpt` (line',
        'which is also `models.student_model.dst_ckpt`',
        text=TWO_STAGES + "teacher: {dst_ckpt: 'PATH/student.pt'}\n",
    ),
    'state': case('expected last.pt of the folder of the run', student='PATH/last.pt', words='--run_dir PATH'),
    'log over the teacher': case(LOG, words='--run_log PATH/teacher.pt'),
    'log over the yaml': case(LOG, words='--run_log PATH/config.yaml'),
    'log over the student': case(LOG, words='--run_log PATH/student.pt'),
    'log over the metrics': case(LOG, 'of the run', words='--run_log PATH/student/metrics.jsonl'),
    'log over the state': case(LOG, 'of the run', words='--run_dir PATH/run --run_log PATH/run/last.pt'),
    'a folder as log': case(
        'expected `--run_log` to be a file that can be written',
        'IsADirectoryError',
        'choose another name',
        words='--run_log PATH/folder.pt',
    ),
    'no suffix': case("/lr_0.1'; write '", 'or name a folder with `--run_dir`', student='PATH/lr_0.1'),
    'folder of the run is the file': case(
        '`models.student_model.dst_ckpt` (line 14) to be a file, got the folder',
        student='PATH/student',
        words='--run_dir PATH/student',
    ),
    'a file as folder': case('got the file', 'another with `--run_dir`', words='--run_dir PATH/teacher.pt'),
    'a folder as file': case('to be a file, got the folder', student='PATH/folder.pt'),
}


def files_in(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file() and path.suffix != '.log'}


@pytest.mark.parametrize('name', COLLISIONS)
def test_files_that_collide(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    text, student, words, parts = COLLISIONS[name]
    for file in ('teacher.pt', 'other.pt'):
        torch.save(tiny.tiny_net(6).state_dict(), tmp_path / file)
    (tmp_path / 'link.pt').symlink_to(tmp_path / 'teacher.pt')
    os.link(tmp_path / 'teacher.pt', tmp_path / 'hard.pt')
    (tmp_path / 'folder.pt').mkdir()
    text = whole_yaml(tmp_path, text, dst_ckpt=student).replace('src_ckpt: }', 'src_ckpt: PATH/teacher.pt}')
    config = write(tmp_path, text.replace('PATH', str(tmp_path)).replace('FOLDER', tmp_path.name))
    before = files_in(tmp_path)
    assert train(config, *(word.replace('PATH', str(tmp_path)) for word in words)) == 2
    err = capsys.readouterr().err
    assert [part for part in parts if part not in err] == [], err
    assert {path: content for path, content in files_in(tmp_path).items() if content} == before


@pytest.mark.parametrize('name', ['no suffix', 'a folder as file'])
def test_check_warns_of_what_train_refuses(name, tmp_path, capsys):
    (tmp_path / 'folder.pt').mkdir()
    student = COLLISIONS[name][1].replace('PATH', str(tmp_path))
    config = write(tmp_path, whole_yaml(tmp_path, NO_WRAPPER, dst_ckpt=student))
    assert main(['check', config, '--json', '--input-size', '8', '--steps', '1']) == 0
    [warning] = [each for each in json.loads(capsys.readouterr().out)['warnings'] if each['kind'] == 'files']
    assert train(config) == 2
    assert warning['text'].endswith(capsys.readouterr().err.removeprefix('error: ').strip())


def test_files_that_a_training_hands_on_to_itself_are_none_that_collide(tmp_path):
    wrapped = TRG_SIDES.replace('{projectors', f"{{projector_ckpt: '{tmp_path}/p.pt', projectors")
    second = wrapped.replace('student:\n', f"student:\n  src_ckpt: '{tmp_path}/stage.pt'\n")
    text = stages(stage(1, CE + TRG, sides=wrapped), stage(1, CE + TRG, sides=second, loaders=''))
    text = whole_yaml(tmp_path, text + f"student: {{dst_ckpt: '{tmp_path}/stage.pt'}}\n")
    student = 'width: 4}\n    src_ckpt:'
    assert student in text
    assert train(write(tmp_path, text.replace(student, f"{student} '{tmp_path}/student.pt'"))) == 0
    assert {'stage.pt', 'student.pt', 'p.pt'} <= {path.name for path in tmp_path.iterdir()}


def test_home_is_the_same_folder_for_every_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('HOME', str(tmp_path))
    torch.save(tiny.tiny_net(6).state_dict(), tmp_path / 'teacher.pt')
    torch.save(tiny.tiny_net().state_dict(), tmp_path / 'start.pt')
    sides = SIDES.replace('requires_grad', "src_ckpt: '~/teacher.pt', requires_grad")
    text = stages(stage(1, CE + KD, sides=sides), stage(1, CE, loaders=''))
    text = whole_yaml(Path('~'), text + "student: {dst_ckpt: '~/stage.pt'}\n")
    text = text.replace('src_ckpt: }', "src_ckpt: '~/teacher.pt'}")
    config = write(tmp_path, text.replace('    src_ckpt:\n', "    src_ckpt: '~/start.pt'\n"))
    assert train(config, '--run_log', '~/a.log', '--run_dir', '~/run') == 0
    assert f'weights of the teacher tiny_net: {tmp_path}/teacher.pt\n' in capsys.readouterr().out
    assert {'stage.pt', 'student.pt', 'a.log', 'run'} <= {path.name for path in tmp_path.iterdir()}
    assert main(['eval', config]) == 0
    out = capsys.readouterr().out
    assert f'weights of the teacher: {tmp_path}/teacher.pt\n' in out
    assert f'weights of the student: {tmp_path}/student.pt\n' in out
    assert main(['check', config, '--input-size', '8', '--steps', '1']) == 0
    assert f'weights of {tmp_path}/teacher.pt' in ' '.join(capsys.readouterr().out.split())


def test_weights_of_a_later_stage_that_do_not_fit(tmp_path, capsys):
    torch.save({f'module.{name}': value for name, value in tiny.tiny_net(6).state_dict().items()}, tmp_path / 't.pt')
    sides = SIDES.replace('requires_grad', f"src_ckpt: '{tmp_path}/t.pt', requires_grad")
    config = write(tmp_path, whole_yaml(tmp_path, stages(NO_WRAPPER, stage(1, CE + KD, sides=sides, loaders=''))))
    assert train(config) == 2
    err = capsys.readouterr().err
    assert 'expected `train.stage2.teacher.src_ckpt` (line ' in err
    assert 'named with `module.` in front (DataParallel)' in err
    assert [path.name for path in tmp_path.iterdir() if path.suffix != '.pt'] == ['config.yaml']


def test_the_json_of_an_evaluation_over_what_it_reads(tmp_path, capsys):
    config = write(tmp_path, whole_yaml(tmp_path, NO_WRAPPER))
    torch.save(tiny.tiny_net().state_dict(), tmp_path / 'student.pt')
    torch.save(tiny.tiny_net().state_dict(), tmp_path / 'other.pt')
    before = files_in(tmp_path)
    for words in ([], [str(tmp_path / 'other.pt')]):
        for file in ('config.yaml', words[0] if words else 'student.pt'):
            assert main(['eval', config, *words, '--json', str(tmp_path / file)]) == 2
            assert '`--json` to be a file of its own' in capsys.readouterr().err
    assert files_in(tmp_path) == before


SGD_BLOCK, ADAM_BLOCK = "'SGD', kwargs: {lr: 0.05, momentum: 0.9}", "'Adam', kwargs: {}"


@pytest.mark.parametrize(
    ('first', 'second', 'part'),
    [
        (SGD_BLOCK, ADAM_BLOCK, "student.pt, KeyError: 'step'; to start from its weights alone, name the file that"),
        (ADAM_BLOCK, SGD_BLOCK, "student.pt of another optimizer, without ['dampening', 'momentum']; to start from"),
    ],
)
def test_a_checkpoint_of_another_optimizer(first, second, part, tmp_path, capsys):
    text = whole_yaml(tmp_path, stage(1, CE)).replace(SGD_BLOCK, first)
    assert train(write(tmp_path, text), '--seed', '1') == 0
    student = 'width: 4}\n    src_ckpt:'
    text = text.replace(student, f"{student} '{tmp_path}/student.pt'")
    assert train(write(tmp_path, text.replace(first, second)), '--overwrite') == 2
    assert part in capsys.readouterr().err
    assert train(write(tmp_path, text), '--overwrite') == 0
    assert f'go on from {tmp_path}/student.pt, not as the YAML has them; to start' in capsys.readouterr().out


def test_check_refuses_files_that_collide_too(tmp_path, capsys):
    text = whole_yaml(tmp_path, NO_WRAPPER).replace('src_ckpt: }', f"src_ckpt: '{tmp_path}/student.pt'}}")
    assert main(['check', write(tmp_path, text)]) == 1
    assert 'which is also `models.teacher_model.src_ckpt` (line 9): the run would' in capsys.readouterr().err


def test_check_warns_of_weights_of_a_stage_that_are_missing(tmp_path, capsys):
    sides = SIDES.replace('requires_grad', "src_ckpt: './typo.pt', requires_grad")
    config = write(tmp_path, whole_yaml(tmp_path, stage(1, CE + KD, sides=sides)))
    assert main(['check', config, '--input-size', '8', '--steps', '1']) == 0
    assert '`train.teacher.src_ckpt` (line 26) is ./typo.pt, which does not' in ' '.join(
        capsys.readouterr().out.split()
    )
