"""`trg-torchdistill train` from the command line's words to its files: real trainings of a tiny model."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from tiny import CE, KD, SIDES, STEP_LR, TRG, TRG_SIDES, last_state, lines_of, stage, train, whole_yaml, write_training

from trg_torchdistill.cli.probe.hooks import check_module_paths
from trg_torchdistill.cli.recipe.config import load_config


def test_metrics_hold_every_term_the_temperature_and_the_learning_rate(tmp_path):
    assert train(write_training(tmp_path, stage(2, CE + KD + TRG, sides=TRG_SIDES, more=STEP_LR))) == 0
    first, second = lines_of(tmp_path)
    terms = first['terms']
    assert set(terms) == {'ce', 'kd', 'trg', 'trg.local', 'trg.global', 'context', 'context.contextual'}
    assert terms['trg'] == pytest.approx(terms['trg.local'] + terms['trg.global'], rel=1e-5)
    weighted = terms['ce'] + terms['kd'] + 0.5 * terms['trg'] + 0.5 * terms['context']
    assert first['loss'] == pytest.approx(weighted, rel=1e-5)
    assert (first['temperature'], second['temperature']) == (0.5, pytest.approx(0.1))
    assert (first['lr'], second['lr']) == (0.05, 0.025)
    assert [first['epoch'], second['epoch']] == [0, 1]
    assert set(first['seconds']) == {'train', 'val'}
    assert first['images_per_second'] == pytest.approx(tiny.ITEMS_AN_EPOCH / first['seconds']['train'])
    assert second['best_val_top1'] == max(first['val_top1'], second['val_top1'])


def test_best_weights_are_the_plain_students_and_pass_test_only(tmp_path, capsys):
    config = write_training(tmp_path, stage(3, CE + TRG, sides=TRG_SIDES))
    assert train(config, '--seed', '1') == 0
    best = torch.load(tmp_path / 'student.pt', weights_only=True)
    assert set(best) == {'model', 'optimizer', 'best_value', 'lr_scheduler', 'args'}
    tiny.tiny_net().load_state_dict(best['model'], strict=True)
    assert best['best_value'] == max(line['val_top1'] for line in lines_of(tmp_path))
    assert best['args']['seed'] == 1
    tested = json.loads((tmp_path / 'student' / 'test.json').read_text())
    assert tested['test']['top1'] == best['best_value']
    capsys.readouterr()
    assert train(config, '-test_only', '-student_only') == 0
    assert capsys.readouterr().out == (
        f'weights of the student tiny_net: {tmp_path}/student.pt\n'
        f'test student tiny_net: top-1 {best["best_value"]:.2f}  top-5 {tested["test"]["top5"]:.2f}  (48 images)\n'
    )


def test_without_teacher(tmp_path):
    sides = "model: {forward_proc: 'forward_batch_only'}\n"
    assert train(write_training(tmp_path, stage(2, CE, sides=sides), teacher=False)) == 0
    assert lines_of(tmp_path)[1]['temperature'] is None
    assert 'teacher' not in json.loads((tmp_path / 'student' / 'test.json').read_text())


def test_start_epoch_continues_from_src_ckpt_as_the_example_trainer_does(tmp_path):
    config = write_training(tmp_path, stage(2, CE, more=STEP_LR))
    assert train(config, '--seed', '1') == 0
    best = torch.load(tmp_path / 'student.pt', weights_only=True)
    text = whole_yaml(tmp_path, stage(4, CE, more=STEP_LR), dst_ckpt=tmp_path / 'second.pt')
    student = 'kwargs: {width: 4}\n    src_ckpt:'
    assert student in text
    config = tiny.write(tmp_path, text.replace(student, f'{student} {tmp_path}/student.pt'), 'second.yaml')
    assert train(config, '--start_epoch', '3', '--run_dir', str(tmp_path / 'run')) == 0
    (line,) = [json.loads(text) for text in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
    assert line['epoch'] == 3
    assert line['best_val_top1'] >= best['best_value']
    assert line['lr'] == best['optimizer']['param_groups'][0]['lr']


def test_no_epoch_beats_zero(tmp_path, capsys):
    text = whole_yaml(tmp_path, stage(1, CE, optimizer="optimizer: {key: 'SGD', kwargs: {lr: 0.5}}\n"))
    text = text.replace("val: !import_call {key: 'tiny.Blobs'", "val: !import_call {key: 'tiny.NeverRight'")
    text = text.replace('width: 4', 'width: 4, num_classes: 7').replace('width: 6', 'width: 6, num_classes: 7')
    assert train(tiny.write(tmp_path, text), '-student_only') == 0
    assert 'no epoch had a validation top-1 above 0' in capsys.readouterr().out
    assert not (tmp_path / 'student.pt').exists()


def test_an_equal_accuracy_does_not_replace_the_best(tmp_path):
    config = write_training(
        tmp_path, stage(3, CE, optimizer="optimizer: {key: 'SGD', kwargs: {lr: 0.0}}\n", sides=SIDES)
    )
    text = Path(config).read_text().replace('width: 4', 'width: 4, momentum: 0.0')
    assert train(tiny.write(tmp_path, text)) == 0
    lines = lines_of(tmp_path)
    assert len({line['val_top1'] for line in lines}) == 1
    assert last_state(tmp_path)['progress']['best_epoch'] == 0


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(tmp_path, capsys):
    late = "late: {criterion: {key: 'LateNan', kwargs: {step: 4}}, weight: 1.0}\n"
    assert train(write_training(tmp_path, stage(3, CE + late))) == 1
    error = capsys.readouterr().err
    assert 'the loss is nan in epoch 2, step 2; not finite: `late`.' in error
    state = last_state(tmp_path)
    assert state['progress']['epochs_done'] == 1
    assert all(value.isfinite().all() for value in state['modules']['student'].values())


def test_output_without_a_terminal_is_narrow_and_plain(tmp_path, capsys):
    log = tmp_path / 'logs' / 'run.log'
    assert train(write_training(tmp_path, stage(2, CE)), '--run_log', str(log), '-log_config') == 0
    out, err = capsys.readouterr()
    epochs = [line for line in out.splitlines() if line.startswith('epoch ')]
    assert len(epochs) == 2
    assert max(map(len, epochs)) <= 100
    assert '\x1b' not in out
    assert err == ''
    assert 'Imported `tiny`' in log.read_text()
    assert "'dst_ckpt'" in log.read_text()


def test_checking_module_paths_leaves_the_random_state_alone(tmp_path):
    config = load_config(write_training(tmp_path, stage(1, CE + TRG, sides=TRG_SIDES)))
    models = {'teacher': tiny.tiny_net(6), 'student': tiny.tiny_net()}
    before = torch.get_rng_state()
    check_module_paths(config, models)
    assert torch.equal(torch.get_rng_state(), before)
