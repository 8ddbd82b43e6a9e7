"""A run that was stopped goes on as if it had not been: from Ctrl-C to damaged files, with real trainings."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from tiny import (
    CE,
    KD,
    MEMORY,
    SIDES,
    STEP_LR,
    TRG,
    TRG_SIDES,
    last_state,
    lines_of,
    stage,
    stages,
    train,
    write_training,
)

pytestmark = pytest.mark.slow

STEPWISE_LR = "scheduler: {key: 'ExponentialLR', kwargs: {gamma: 0.9}, scheduling_step: 1}\n"
PLATEAU = "scheduler: {key: 'ReduceLROnPlateau', kwargs: {mode: 'max', patience: 0}}\n"
ACCUMULATION = "optimizer: {key: 'SGD', kwargs: {lr: 0.05, momentum: 0.9}, grad_accum_step: 4}\n"
EVERYTHING = stage(
    4,
    CE + KD + TRG,
    sides=TRG_SIDES,
    optimizer=ACCUMULATION.replace('grad_accum_step: 4', 'grad_accum_step: 2, max_grad_norm: 1.0'),
    more=STEPWISE_LR,
)
TRAINED_TEACHER = SIDES.replace(', requires_grad: False', '')
HALF_STUDENT = SIDES.replace(
    "student: {forward_proc: 'forward_batch_only'}",
    "student: {forward_proc: 'forward_batch_only', sequential: ['layer1'], forward_hook: {output: ['layer1']}}",
).replace('requires_grad: False', "requires_grad: False, sequential: ['layer1'], forward_hook: {output: ['layer1']}")
HINT = """
hint:
  criterion: {key: 'MSELoss', kwargs: {}}
  criterion_wrapper:
    key: 'SimpleLossWrapper'
    kwargs: {input: {is_from_teacher: False, module_path: 'layer1', io: 'output'},
             target: {is_from_teacher: True, module_path: 'layer1', io: 'output'}}
  weight: 1.0
"""
LASTING = TRG.replace(
    'num_neighbors: 3,',
    "num_neighbors: 3, edges: 'teacher', global_targets: 'teacher', queue_size: 50, "
    "local_weight: {start: 1.0, end: 0.0, schedule: 'linear'},",
)
TRAININGS = {
    'queue': stage(4, CE + LASTING, sides=TRG_SIDES),
    'kd': stage(4, CE + KD),
    'adam': stage(4, CE + KD, optimizer="optimizer: {key: 'Adam', kwargs: {lr: 0.01}}\n"),
    'teacher_trained_too': stage(4, CE + KD, sides=TRAINED_TEACHER),
    'term_with_memory': stage(4, CE + MEMORY),
    'scheduler_on_plateau': stage(4, CE + KD, more=PLATEAU),
    'rest_of_accumulated_gradients': stage(4, CE + KD, optimizer=ACCUMULATION),
    'stage_2_begun': stages(stage(1, CE + KD), stage(3, CE + TRG, sides=TRG_SIDES, more=STEP_LR)),
    'stage_2_after_the_resume': stages(stage(3, CE + KD), stage(1, CE + TRG, sides=TRG_SIDES)),
    'stage_2_about_to_begin': stages(stage(2, CE + TRG, sides=TRG_SIDES), stage(2, CE + KD, loaders='')),
    'redesigned_student_in_stage_1': stages(stage(1, HINT, sides=HALF_STUDENT), stage(3, CE + KD, loaders='')),
    'optimizer_kept_in_stage_2': stages(stage(1, CE + KD), stage(3, CE, optimizer='', loaders='')),
}


@pytest.fixture
def interrupt(monkeypatch):
    """Trains with data that raise KeyboardInterrupt, as Ctrl-C does, after some epochs."""

    def run(epochs, *words):
        with monkeypatch.context() as patch:
            patch.setattr(tiny, 'items_until_interrupt', round(epochs * tiny.ITEMS_AN_EPOCH))
            assert train(*words) == 130

    return run


@pytest.mark.parametrize('name', TRAININGS)
def test_a_resumed_run_equals_an_uninterrupted_one(name, tmp_path, monkeypatch):
    tiny.assert_a_resume_is_exact(tmp_path, monkeypatch, TRAININGS[name])


@pytest.mark.parametrize('words', [('--amp', 'bf16'), ('--amp', 'fp16'), ('--channels_last',)], ids=' '.join)
def test_a_resumed_run_of_everything_equals_an_uninterrupted_one(words, tmp_path, monkeypatch, capsys):
    tiny.assert_a_resume_is_exact(tmp_path, monkeypatch, EVERYTHING, *words)
    assert f'{" ".join(words)} --resume' in capsys.readouterr().out


def test_stopped_in_the_first_epoch_and_without_a_seed(tmp_path, interrupt):
    config = write_training(tmp_path, TRAININGS['kd'])
    interrupt(0.5, config)
    start = last_state(tmp_path)
    assert start['progress']['epochs_done'] == 0
    for _ in range(2):
        torch.save(start, tmp_path / 'student' / 'last.pt')
        assert train(config, '--resume') == 0
        (tmp_path / f'{len(list(tmp_path.glob("*.jsonl")))}.jsonl').write_text(json.dumps(lines_of(tmp_path)))
    first, second = (json.loads((tmp_path / name).read_text()) for name in ('0.jsonl', '1.jsonl'))
    assert tiny.without_times(first) == tiny.without_times(second)


def test_interrupting_says_what_is_kept_and_how_to_continue(tmp_path, interrupt, capsys):
    config = write_training(tmp_path, TRAININGS['kd'])
    interrupt(1.5, config, '--seed', '3', '--run_dir', str(tmp_path / 'my run'), '-student_only')
    out = capsys.readouterr().out
    assert f'{tmp_path}/my run/last.pt keeps the state after epoch 1 of 4' in out
    command = f"trg-torchdistill train {config} --seed 3 --run_dir '{tmp_path}/my run' -student_only --resume"
    assert out.splitlines()[-1].strip() == command


def test_a_frozen_teacher_in_eval_mode_is_not_saved_and_any_other_is(tmp_path):
    torch.save(tiny.tiny_net(width=6).state_dict(), tmp_path / 'teacher.pt')
    trainings = {'eval': (stage(1, CE + TRG, sides=TRG_SIDES), f"'{tmp_path}/teacher.pt'")}
    trainings['train'] = (stage(1, CE + KD), f"'{tmp_path}/teacher.pt'")
    trainings['random'] = (stage(1, CE + TRG, sides=TRG_SIDES), '')
    saved = {}
    for name, (text, source) in trainings.items():
        text = tiny.whole_yaml(tmp_path / name, text).replace(
            'width: 6}, src_ckpt: ', f'width: 6}}, src_ckpt: {source}'
        )
        assert train(tiny.write(tmp_path / name, text)) == 0
        saved[name] = 'teacher' in last_state(tmp_path / name)['modules']
    assert saved == {'eval': False, 'train': True, 'random': True}


def test_an_earlier_run_is_refused_resumed_or_overwritten(tmp_path, capsys):
    config = write_training(tmp_path, stage(2, CE))
    assert train(config, '--seed', '1') == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob('*.*')}
    capsys.readouterr()
    assert train(config) == 2
    assert 'continue that run with `--resume`, replace it with `--overwrite`' in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob('*.*')} == before
    assert train(config, '--resume', '--seed', '1') == 0
    assert 'is finished, 2 of 2 epochs; only the test is left' in capsys.readouterr().out
    assert train(config, '--overwrite') == 0
    assert len(lines_of(tmp_path)) == 2


def test_more_epochs_continue_a_finished_run_and_a_changed_yaml_is_told(tmp_path, capsys):
    assert train(write_training(tmp_path, stage(2, CE)), '--seed', '1') == 0
    capsys.readouterr()
    assert train(write_training(tmp_path, stage(3, CE)), '--resume') == 0
    out = capsys.readouterr().out
    assert 'is not what this run began with' in out
    assert '-  num_epochs: 2\n' in out
    assert '+  num_epochs: 3\n' in out
    assert 'this run began with --seed 1, now it is None' in out
    assert [line['epoch'] for line in lines_of(tmp_path)] == [0, 1, 2]


COSINE = "scheduler: {key: 'CosineAnnealingLR', kwargs: {T_max: 2}}\n"
SCHEDULED = stage(2, CE, more=COSINE)
TWO_STAGES = stages(stage(1, CE, more=COSINE), stage(2, CE, loaders='', more=STEP_LR))
# name: (text of `train:`, what is replaced in the YAML after the run, by what, part of the message)
UNFOLLOWED = {
    'scheduler': (SCHEDULED, 'T_max: 2', 'T_max: 4', "kwargs` (line 29) to be {'T_max': 2}, with which"),
    'other scheduler': (SCHEDULED, COSINE.strip(), STEP_LR.strip(), 'to be CosineAnnealingLR, with'),
    'no scheduler': (SCHEDULED, COSINE, '\n', 'scheduler.key` to be CosineAnnealingLR, with which'),
    'learning rate': (stage(2, CE), 'lr: 0.05', 'lr: 0.01', "got {'lr': 0.01, 'momentum': 0.9}: a resumed optimizer"),
    'file of the best weights': (stage(2, CE), 'student.pt', 'other.pt', ': the best weights so far are in that file'),
    'scheduler of the last stage': (TWO_STAGES, 'gamma: 0.5', 'gamma: 0.1', 'train.stage2.scheduler.kwargs` (line '),
    'epochs of a stage that is over': (TWO_STAGES, 'num_epochs: 1', 'num_epochs: 2', 'that stage is over'),
}


@pytest.mark.parametrize('name', UNFOLLOWED)
def test_a_change_that_the_state_would_hide_is_refused(name, tmp_path, capsys):
    text, found, replacement, part = UNFOLLOWED[name]
    config, words = write_training(tmp_path, text), ('--run_dir', str(tmp_path / 'run'))
    assert train(config, *words) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob('*.*') if path.suffix != '.yaml'}
    changed = Path(config).read_text().replace(found, replacement, 1)
    assert changed != Path(config).read_text()
    capsys.readouterr()
    assert train(tiny.write(tmp_path, changed), '--resume', *words) == 2
    assert part in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob('*.*') if path.suffix != '.yaml'} == before


def test_the_optimizer_of_a_later_stage_may_change(tmp_path, interrupt):
    config = write_training(tmp_path, stages(stage(2, CE), stage(1, CE, loaders='', more=STEP_LR)))
    interrupt(1.4, config)
    text = Path(config).read_text()
    start = text.index('stage2')
    assert train(tiny.write(tmp_path, text[:start] + text[start:].replace('lr: 0.05', 'lr: 0.01')), '--resume') == 0
    assert [line['lr'] for line in lines_of(tmp_path)] == [0.05, 0.05, 0.01]


def test_a_resume_needs_no_file_of_the_weights_that_it_has(tmp_path, capsys):
    torch.save(tiny.tiny_net().state_dict(), tmp_path / 'start.pt')
    text = tiny.whole_yaml(tmp_path, stage(1, CE)).replace(
        'width: 4}\n    src_ckpt:', f'width: 4}}\n    src_ckpt: {tmp_path}/start.pt'
    )
    assert train(tiny.write(tmp_path, text)) == 0
    assert f'weights of the student tiny_net: {tmp_path}/start.pt\n' in capsys.readouterr().out
    (tmp_path / 'start.pt').unlink()
    assert train(tiny.write(tmp_path, text.replace('num_epochs: 1', 'num_epochs: 2')), '--resume') == 0
    assert 'weights of the student tiny_net: those of the run\n' in capsys.readouterr().out


def test_a_resume_repairs_metrics(tmp_path, interrupt):
    config = write_training(tmp_path, stage(4, CE))
    interrupt(2.5, config)
    (tmp_path / 'student' / 'metrics.jsonl').write_text('{"epoch": 0}\n{"epo')
    assert train(config, '--resume') == 0
    assert [line['epoch'] for line in lines_of(tmp_path)] == [0, 1, 2, 3]


def test_a_state_of_another_model_is_refused_and_kept(tmp_path, capsys):
    config = write_training(tmp_path, stage(1, CE))
    assert train(config) == 0
    before = (tmp_path / 'student' / 'last.pt').read_bytes()
    Path(config).write_text(Path(config).read_text().replace('width: 4', 'width: 5'))
    assert train(config, '--resume') == 2
    assert 'to fit the models, losses and stages of the YAML' in capsys.readouterr().err
    assert (tmp_path / 'student' / 'last.pt').read_bytes() == before


def test_a_stage_checkpoint_is_not_overwritten_by_a_resume(tmp_path, interrupt):
    text = stages(stage(1, CE + KD), stage(3, CE + KD, loaders=''))
    text += f"student: {{dst_ckpt: '{tmp_path}/stage1.pt'}}\n"
    config = write_training(tmp_path, text)
    interrupt(2.5, config)
    before = (tmp_path / 'stage1.pt').read_bytes()
    assert train(config, '--resume') == 0
    assert (tmp_path / 'stage1.pt').read_bytes() == before
