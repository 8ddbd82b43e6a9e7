"""`torchrun ... -m trg_torchdistill train` on the CPU: launches, which the tests share; one is by torchrun itself.

The main run has all that must come back exactly: two stages, a batch sampler of its own, momentum, BatchNorm, dropout,
random images and tokens, scaled float16 gradients, shards of unequal size, and 24 steps.
"""

import json
import shutil
import signal

import pytest
import tiny
import torch
from ranks import DDP, Launch
from tiny import CE, KD, LOADERS, SIDES, TRG, TRG_SIDES, last_state, lines_of, stage, stages

from trg_torchdistill.cli.main import main

pytestmark = pytest.mark.slow

DUMP = "post_epoch_process: 'dump_each_process'\n"
WRAPPED = SIDES.replace(
    "student: {forward_proc: 'forward_batch_only'", f"student: {{forward_proc: 'forward_batch_only', {DDP}"
)
OWN_BATCHES = LOADERS.replace(
    'kwargs: {batch_size: 8, num_workers: 0}',
    "kwargs: {num_workers: 0}\n  batch_sampler: {key: 'BatchSampler', kwargs: {batch_size: 2, drop_last: False}}",
)
TWO_STAGES = stages(
    stage(2, CE + KD, sides=WRAPPED, loaders=OWN_BATCHES, more=DUMP),
    stage(2, CE + KD + TRG, sides=TRG_SIDES, loaders='', more=DUMP),
)
OPTIONS = ('--seed', '3', '--amp', 'fp16', '-adjust_lr')


def write_yaml(folder, train=TWO_STAGES, size=22, watched=''):
    text = tiny.whole_yaml(folder, train, train_kwargs=f"size: {size}, folder: '{folder}', {watched}")
    text = text.replace("- name: 'tiny'", "- name: 'tiny'\n  - name: 'ranks'").replace('size: 48', 'size: 49')
    return tiny.write(
        folder,
        text.replace("key: 'tiny.Blobs', init: {kwargs: {size: 22", "key: 'ranks.Watched', init: {kwargs: {size: 22"),
    )


def dumps(folder):
    return [
        [json.loads(line) for line in path.read_text().splitlines()] for path in sorted((folder / 'ranks').iterdir())
    ]


def assert_equal_models(processes):
    for lines in zip(*processes, strict=True):
        for name in ('weights', 'buffers', 'momentum', 'means'):
            assert all(line[name] == lines[0][name] for line in lines), name


# name -> YAML, what process 1 does at which of its images, and options; all start at once, `whole` by torchrun
LAUNCHES = {
    'whole': (TWO_STAGES, '', OPTIONS),
    'interrupted': (TWO_STAGES, "rank: 1, image: 27, does: 'interrupt'", OPTIONS),  # in the third epoch of 11 images
    'nan': (stage(3, CE + KD, sides=WRAPPED), "rank: 1, image: 12, does: 'nan'", ()),
    'fail': (stage(3, CE + KD, sides=WRAPPED), "rank: 1, image: 12, does: 'fail'", ()),
    'end': (stage(3, CE + KD, sides=WRAPPED), "rank: 1, image: 12, does: 'end'", ()),
    'refused': (stage(1, CE), '', ()),
}
MESSAGES = {
    'nan': 'error: the loss is nan in epoch 2, step 1; not finite: `ce`, `kd`, in process 1. ',
    'fail': 'process 1 of 2 failed:\nerror: item ',
    'end': 'error: process 0 of 2 lost the others',
    'refused': "error: expected `train.student.wrapper` to be 'DistributedDataParallel' for several processes",
}


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """(folder, exit code, output, errors) of each launch."""
    folders = {name: tmp_path_factory.mktemp(name) for name in LAUNCHES}
    launched = {
        name: Launch('train', write_yaml(folders[name], train, watched=watched), *options, by_torchrun=name == 'whole')
        for name, (train, watched, options) in LAUNCHES.items()
    }
    return {name: (folders[name], *launch.end()) for name, launch in launched.items()}


@pytest.fixture(scope='module')
def whole(finished):
    return finished['whole']


def copy_of_run(folder, name):
    """A copy in another folder, which its state takes for its own."""
    copy = folder.with_name(name)
    shutil.copytree(folder, copy)
    state = last_state(copy)
    state['config_text'] = state['config_text'].replace(str(folder), str(copy))
    torch.save(state, copy / 'student' / 'last.pt')
    return copy


def test_trains_to_the_end_and_only_the_first_process_speaks(whole):
    folder, code, out, err = whole
    assert code == 0, err
    assert [line[:9] for line in out.splitlines() if line.startswith('epoch ')] == [f'epoch {n}/4' for n in range(1, 5)]
    assert out.count('best weights: ') == out.count('test student ') == out.count('test teacher ') == 1
    assert 'WARNING' not in out + err
    assert {path.name for path in folder.iterdir()} == {'config.yaml', 'ranks', 'student', 'student.pt'}
    assert {path.name for path in (folder / 'student').iterdir()} == {'last.pt', 'metrics.jsonl', 'test.json'}


def test_processes_stay_equal_and_draw_different_things(whole):
    first, second = dumps(whole[0])
    assert len(first) == 4
    assert_equal_models((first, second))
    assert len({line['weights'] for line in first}) == 4
    for one, other in zip(first, second, strict=True):
        assert one['draw'] != other['draw']
        assert one['trg'] == {} or one['trg']['trg']['local'] != other['trg']['trg']['local']


def test_each_epoch_of_each_stage_shares_out_the_images_anew(whole):
    first, second = dumps(whole[0])
    orders = [tuple(line['images']) for line in first]
    assert len(set(orders)) == 4
    for one, other in zip(first, second, strict=True):
        assert sorted(one['images'] + other['images']) == list(range(22))


def test_metrics_are_those_of_all_processes(whole):
    lines, (first, second) = lines_of(whole[0]), dumps(whole[0])
    for line, one, other in zip(lines[2:], first[2:], second[2:], strict=True):
        mean = (one['trg']['trg']['local'] + other['trg']['trg']['local']) / 2
        assert line['terms']['trg.local'] == pytest.approx(mean, rel=1e-5)
        terms = line['terms']
        weighted = terms['ce'] + terms['kd'] + 0.5 * terms['trg'] + 0.5 * terms['context']
        assert line['loss'] == pytest.approx(weighted, rel=1e-5)
    for line in lines:
        assert line['images_per_second'] * line['seconds']['train'] == pytest.approx(22)
        assert line['lr'] == 0.1  # -adjust_lr doubled it


def test_accuracy_is_that_of_one_process(whole):
    folder = whole[0]
    together = json.loads((folder / 'student' / 'test.json').read_text())
    assert tiny.train(str(folder / 'config.yaml'), '-test_only', '-student_only', '--amp', 'fp16') == 0
    alone = json.loads((folder / 'student' / 'test.json').read_text())
    assert together['test'] == alone['test']
    assert together['test']['n'] == together['teacher']['n'] == 49
    best = max(lines_of(folder), key=lambda line: line['val_top1'])
    assert (best['val_top1'], best['val_top5']) == (alone['test']['top1'], alone['test']['top5'])


def test_eval_of_two_processes_measures_what_one_does(whole, tmp_path):
    words = [str(whole[0] / 'config.yaml'), '--seed', '3', '--json']
    code, _, err = Launch('eval', *words, str(tmp_path / 'together.json')).end()
    assert code == 0, err
    assert main(['eval', *words, str(tmp_path / 'alone.json')]) == 0
    together, alone = (json.loads((tmp_path / f'{name}.json').read_text()) for name in ('together', 'alone'))
    assert alone['test']['n'] == 49
    assert together['agreement'].pop('divergence') == pytest.approx(alone['agreement'].pop('divergence'), rel=1e-6)
    assert together == alone


def test_ctrl_c_of_one_process_stops_all_and_a_resume_is_exact(whole, finished):
    folder, _, out, _ = finished['interrupted']
    assert last_state(folder)['progress']['epochs_done'] == 2
    assert out.count('interrupted; ') == 1
    command = out.splitlines()[-1].strip()
    assert command.startswith('torchrun --nproc_per_node 2 -m trg_torchdistill train ')
    assert command.endswith('--seed 3 --amp fp16 -adjust_lr --device cpu --resume')
    resumed = copy_of_run(folder, 'resumed')
    code, _, err = Launch('train', write_yaml(resumed), *OPTIONS, '--resume').end()
    assert code == 0, err
    assert tiny.without_times(lines_of(resumed)) == tiny.without_times(lines_of(whole[0]))
    assert tiny.comparable(last_state(resumed)) == tiny.comparable(last_state(whole[0]))
    assert [lines[2:] for lines in dumps(resumed)] == [lines[2:] for lines in dumps(whole[0])]


def test_another_number_of_processes_continues_with_a_warning(finished):
    folder = copy_of_run(finished['interrupted'][0], 'four')
    shutil.rmtree(folder / 'ranks')
    code, out, err = Launch('train', write_yaml(folder), *OPTIONS, '--resume', processes=4).end()
    assert code == 0, err
    assert out.count('WARNING: this run went on in 2 processes, now they are 4') == 1
    found = dumps(folder)
    assert len(found) == 4
    assert [len(lines) for lines in found] == [2, 2, 2, 2]
    assert_equal_models(found)
    assert len({lines[0]['draw'] for lines in found}) == 4
    assert len(lines_of(folder)) == 4


@pytest.mark.parametrize('name', MESSAGES)
def test_a_failure_ends_all_processes_with_one_message(name, finished):
    folder, code, out, err = finished[name]
    assert code == 1
    assert MESSAGES[name] in err
    assert err.count('error: ') == 1
    assert 'trg_torchdistill/cli' not in err  # no traceback of ours
    if name == 'refused':
        assert out == ''
        assert [path.name for path in folder.iterdir()] == ['config.yaml']
    else:
        assert last_state(folder)['progress']['epochs_done'] == 1


@pytest.mark.parametrize(
    ('processes', 'number', 'code'),
    [(1, signal.SIGINT, 130), (2, signal.SIGTERM, 1)],
    ids=['Ctrl-C without torchrun', 'the end of torchrun'],
)
def test_a_signal_ends_the_training_and_keeps_the_state(processes, number, code, tmp_path):
    launch = Launch('train', write_yaml(tmp_path, stage(10_000, CE, sides=WRAPPED)), processes=processes)
    found, out, _ = launch.interrupted_after_an_epoch(number)
    assert out.count('interrupted; ') == 1
    done = last_state(tmp_path)['progress']['epochs_done']
    assert f'keeps the state after epoch {done} of 10000' in out
    assert found == code


def test_a_state_of_before_there_were_processes_is_read(tmp_path):
    """Version 1 had the first process's own state at the top."""
    config = tiny.write_training(tmp_path, stage(1, CE))
    assert tiny.train(config, '--seed', '1') == 0
    state = last_state(tmp_path)
    (own,) = state.pop('processes')
    del state['precision']
    torch.save(
        {**state, **own, 'format': 'trg_torchdistill training state, version 1'}, tmp_path / 'student' / 'last.pt'
    )
    config = tiny.write_training(tmp_path, stage(2, CE))
    assert tiny.train(config, '--seed', '1', '--resume') == 0
    expected = tmp_path / 'expected'
    assert tiny.train(tiny.write_training(expected, stage(2, CE)), '--seed', '1') == 0
    assert tiny.without_times(lines_of(tmp_path)) == tiny.without_times(lines_of(expected))
