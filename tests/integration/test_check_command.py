"""`trg-torchdistill check` on real boxes: what it prints, its exit codes, and that it leaves nothing behind."""

import json
import math

import pytest
import torch
from tiny import (
    CE,
    KD,
    QUICK,
    SGD,
    SIDES,
    TRG,
    TRG_SIDES,
    check,
    kinds,
    stage,
    stages,
    terms,
    tiny_net,
    whole_yaml,
    write,
)
from torchdistill.core.distillation import DistillationBox

from trg_torchdistill.cli.main import main

FULL = stage(3, CE + KD + TRG, sides=TRG_SIDES)
EARLIER = stage(1, CE + KD)
LATER = stage(2, CE + TRG, sides=TRG_SIDES, loaders='')


def test_a_good_yaml(tmp_path, capsys):
    code, report = check(tmp_path, capsys, FULL)
    assert (code, report['ok'], report['error'], report['warnings']) == (0, True, None, [])
    keys = 'config ok error task image_size image_size_source batch_size data steps_on models stages warnings'
    assert list(report) == keys.split()
    assert (report['image_size'], report['batch_size']) == ([8, 8], 8)
    hooked = {side: [m['path'] for m in model['modules'] if m['hooked']] for side, model in report['models'].items()}
    assert hooked == {'teacher': ['layer2'], 'student': ['layer2']}
    layer2 = next(module for module in report['models']['teacher']['modules'] if module['path'] == 'layer2')
    assert (layer2['output'], layer2['tokens']) == ([2, 6, 4, 4], {'grid': [4, 4], 'width': 6})
    [only] = report['stages']
    assert only['unreached'] == []
    assert only['step']['seconds'] > 0
    assert only['step']['without_trg'] > 0
    [graph] = only['graphs']
    assert (graph['num_tokens'], graph['num_neighbors'], graph['temperature']) == (8 * 4, 3, 0.5)
    assert [path.name for path in tmp_path.iterdir()] == ['config.yaml']


def test_terms_add_up_and_so_do_shares(tmp_path, capsys):
    _, report = check(tmp_path, capsys, FULL, change=('num_neighbors: 3', 'num_neighbors: 3, local_weight: 0.5'))
    found = terms(report)
    assert list(found) == ['ce', 'kd', 'trg.local', 'trg.global', 'context']
    assert [term['weight'] for term in found.values()] == [1.0, 1.0, 0.25, 0.5, 0.5]
    assert math.isclose(sum(term['weighted'] for term in found.values()), report['stages'][0]['loss'], rel_tol=1e-5)
    assert math.isclose(sum(term['share'] for term in found.values()), 1.0)


def test_the_figures_are_the_same_each_time_and_the_process_is_as_before(tmp_path, capsys):
    before, state = dict(vars(DistillationBox)), torch.get_rng_state()
    first = check(tmp_path, capsys, FULL)[1]['stages'][0]
    assert torch.equal(torch.get_rng_state(), state)
    assert dict(vars(DistillationBox)) == before
    torch.rand(3)
    second = check(tmp_path, capsys, FULL)[1]['stages'][0]
    assert first['terms'] == second['terms']


def test_the_terminal_gets_plain_text_of_80_columns(tmp_path, capsys):
    path = write(tmp_path, whole_yaml(tmp_path, FULL.replace('num_epochs: 3', 'num_epochs: 1')))
    assert main(['check', path, *QUICK, '--batch-size', '4']) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line for line in lines if len(line) > 80 and str(tmp_path) not in line] == []
    assert all(line.isprintable() and line.isascii() for line in lines)
    assert lines[-2:] == ['the data was not looked at; --data does that', 'ok: will train; 1 warning']
    assert printed.err == ''
    text = ' '.join(printed.out.split())
    parts = (
        'teacher tiny_net, 564 parameters, random weights',
        'images 8 x 8, random (--input-size)',
        '* layer2 4x4x4 4x4 tokens of 4',
        "train: 1 epoch; first step, 4 images, fewer than the YAML's 8",
        'trg: M = 16 (4 of 16 tokens an image), k = 3, graph 10.8 kB, temperature 0.5',
        "at the YAML's batch of 8: M = 32",
        "of the gradient on the teacher's edges: local ",
        'without TRG',
        'median of 1, 1 thread; an indication',
        '1. `temperature:` of `trg` is a schedule, and `train.num_epochs` (line 17) is 1',
    )
    assert [part for part in parts if part not in text] == [], text
    assert 'layer1.0' not in text
    main(['check', path, *QUICK, '--all-modules'])
    assert 'layer1.0' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('words', 'text', 'part'),
    [
        (['no_such.yaml'], FULL, 'expected CONFIG to be a YAML file'),
        (['--stage', 'stage2'], FULL, 'expected `--stage` to be one of train, the stages of'),
        (['--stage', 'stag2'], stages(EARLIER, LATER), 'did you mean `stage2`'),
        (['--device', 'abacus'], FULL, 'expected `--device` to be cpu'),
    ],
)
def test_usage_errors(words, text, part, tmp_path, capsys):
    path = write(tmp_path, whole_yaml(tmp_path, text))
    assert main(['check', *([] if words[0].endswith('.yaml') else [path]), *words]) == 2
    printed = capsys.readouterr()
    assert part in printed.err
    assert printed.out == ''


def test_a_model_that_needs_a_download_is_neither_right_nor_wrong(tmp_path, capsys):
    text = whole_yaml(tmp_path, FULL).replace("key: 'tiny_net'", "key: 'tiny_net', repo_or_dir: 'a/b'", 1)
    assert main(['check', write(tmp_path, text), *QUICK]) == 2
    assert 'built without a download' in capsys.readouterr().err


def test_a_flag_that_is_no_number(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(['check', 'x.yaml', '--steps', '0'])
    assert stopped.value.code == 2


@pytest.mark.parametrize('name', [None, 'stage1', 'stage2'])
def test_stages(name, tmp_path, capsys):
    words = [] if name is None else ['--stage', name]
    code, report = check(tmp_path, capsys, stages(EARLIER, LATER), *words)
    assert (code, report['error']) == (0, None)
    found = [stage['name'] for stage in report['stages']]
    assert found == (['train.stage1', 'train.stage2'] if name is None else [f'train.{name}'])
    if name != 'stage1':
        assert list(terms(report, -1)) == ['ce', 'trg.local', 'trg.global', 'context']
        assert report['stages'][-1]['graphs'][0]['temperature'] == 0.5
    assert ('teacher_in_train_mode' in kinds(report)) == (name != 'stage2')


def test_a_yaml_without_teacher(tmp_path, capsys):
    sides = "model: {forward_proc: 'forward_batch_only'}\n"
    code, report = check(tmp_path, capsys, stage(1, CE, sides=sides), teacher=False)
    assert (code, report['warnings'], list(report['models'])) == (0, [], ['student'])
    assert terms(report)['ce']['share'] == 1.0
    assert report['stages'][0]['step']['without_trg'] is None


def test_weights_that_are_there_are_used(tmp_path, capsys):
    torch.save(tiny_net(width=6).state_dict(), tmp_path / 'teacher.pt')
    change = ('src_ckpt: }', f"src_ckpt: '{tmp_path / 'teacher.pt'}'}}")
    _, report = check(tmp_path, capsys, FULL, change=change)
    assert report['models']['teacher']['weights'].startswith('weights of ')
    torch.save(tiny_net(width=5).state_dict(), tmp_path / 'teacher.pt')
    code, report = check(tmp_path, capsys, FULL, change=change)
    assert code == 1
    assert 'to hold weights of `tiny_net`' in report['error']


def test_files_of_projections_are_not_written(tmp_path, capsys):
    file = tmp_path / 'projectors.pt'
    sides = TRG_SIDES.replace('kwargs: {projectors:', f"kwargs: {{projector_ckpt: '{file}', projectors:")
    code, _ = check(tmp_path, capsys, stages(stage(1, CE + TRG, sides=sides), LATER))
    assert (code, file.exists()) == (0, False)


NAN = "nan: {{criterion: {{key: 'LateNan', kwargs: {{step: {}}}}}, weight: 1.0}}\n"
FROZEN = SIDES.replace('student: {', 'student: {requires_grad: False, ')
VAL = "dataset_id: 'val'"
NO_CHANGE = ('', '')


@pytest.mark.parametrize(
    ('train', 'change', 'part'),
    [
        (stage(1, CE + NAN.format(0)), NO_CHANGE, '`nan`'),
        (stage(1, CE + NAN.format(1)), NO_CHANGE, 'in step 2'),
        (stage(1, CE, optimizer=SGD.replace('0.05', '1.0e+30')), NO_CHANGE, 'in step '),
        (stage(1, CE, sides=FROZEN), NO_CHANGE, 'got an empty parameter list'),
        (stage(1, '{}'), NO_CHANGE, 'depends on none'),
        (stage(1, CE, more="pre_forward_process: 'no such'\n"), NO_CHANGE, "got 'no such'"),
        (FULL, ("'layer2']", "'layer9']"), "got 'layer9', where there is nothing; did you mean `layer2`?"),
        (FULL, ("'pre_epoch_process_with_trg'", "'default_pre_epoch_process_with_teacher'"), 'to be told its epoch'),
        (FULL, ('num_neighbors: 3', 'num_neighbours: 3'), 'did you mean `num_neighbors`?'),
        (FULL, ('batch_size: 16', 'batchsize: 16'), '`train.val_data_loader`'),
        (FULL, (VAL, f'requires_supp: True\n    {VAL}'), 'remove `train.val_data_loader.req'),
    ],
)
def test_what_fails_is_an_error_and_json_is_all_that_is_printed(train, change, part, tmp_path, capsys):
    path = write(tmp_path, whole_yaml(tmp_path, train).replace(*change, 1))
    assert main(['check', path, '--json', *QUICK]) == 1
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert (report['ok'], report['stages'], printed.err) == (False, [], '')
    assert part in report['error'], report['error']
