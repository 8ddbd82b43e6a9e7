import signal

import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, WeightedRandomSampler
from torch.utils.data.distributed import DistributedSampler

from tests.unit.boxes import distillation_box
from trg_torchdistill.cli.data.reading import count_each_image_once
from trg_torchdistill.cli.measure.evaluation import evaluate
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.runtime.placement import choose_placement
from trg_torchdistill.cli.runtime.processes import ALONE, Processes, StopSignals, joined
from trg_torchdistill.cli.runtime.progress import Reporter
from trg_torchdistill.cli.train.parallel import check_for_several_processes, join_stage
from trg_torchdistill.errors import TRGError
from trg_torchdistill.host import Box

DDP = 'DistributedDataParallel'
TWO = Processes(rank=1, local_rank=1, size=2, local_size=2)


def config(tmp_path, sampler=RandomSampler, sampler_kwargs=None, teacher_learns=False, **student):
    """A YAML that may be trained by several processes, but for what is given."""
    loader = {'sampler': {'class_or_func': sampler, 'kwargs': sampler_kwargs}}
    teacher = {} if teacher_learns else {'requires_grad': False}
    train = {'train_data_loader': loader, 'teacher': teacher, 'student': {'wrapper': DDP, **student}}
    models = {'student_model': {}, 'teacher_model': {}}
    return Config(tmp_path, '', {'models': models, 'train': train, 'test': {'test_data_loader': {}}})


@pytest.mark.parametrize(
    ('student', 'said'),
    [
        ({}, ''),
        ({'wrapper': {'key': DDP, 'kwargs': {}}}, ''),
        ({'wrapper': None, 'auxiliary_model_wrapper': {'key': 'Student4TRG'}}, ''),
        ({'wrapper': None, 'requires_grad': False}, ''),
        (
            {'sampler': WeightedRandomSampler},
            'WARNING: with several processes torchdistill replaces `train.train_data_loader.sampler`, '
            'WeightedRandomSampler, by a DistributedSampler, which shuffles\n',
        ),
    ],
)
def test_yamls_that_share_what_they_train(student, said, tmp_path, capsys):
    check_for_several_processes(config(tmp_path, **student), Reporter())
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    ('student', 'message'),
    [
        (
            {'teacher_learns': True},
            "'DistributedDataParallel'`, or `requires_grad: False` to freeze it, under",
        ),
        ({'wrapper': None}, f"expected `train.student.wrapper` to be '{DDP}' for several processes, got nothing"),
        ({'wrapper': 'DataParallel'}, "got 'DataParallel': each would train a model of its own; write `wrapper: "),
        ({'wrapper': {'key': 'FullyShardedDataParallel'}}, "got 'FullyShardedDataParallel'"),
        (
            {'auxiliary_model_wrapper': {'key': 'Student4TRG'}},
            'expected `train.student.wrapper` to be empty around `Student4TRG`, which wraps its parts itself',
        ),
        ({'sampler_kwargs': {'replacement': True}}, '`train.train_data_loader.sampler.kwargs` do not suit a Dist'),
    ],
)
def test_yamls_whose_processes_would_drift_apart(student, message, tmp_path):
    with pytest.raises(TRGError) as error:
        check_for_several_processes(config(tmp_path, **student), Reporter())
    assert message in str(error.value)


def test_an_auxiliary_wrapper_that_shares_nothing_is_found(tmp_path):
    """A wrapper of somebody else, which the YAML cannot tell from one that wraps its parts."""
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    box = Box(distillation_box(student_model=model, teacher_model=model, optimizer=optimizer))
    with pytest.raises(TRGError, match=r'`train` to train only what the processes share, got `weight` of `Linear`'):
        join_stage(box, config(tmp_path, wrapper=None), ALONE)


@pytest.mark.parametrize('own_batches', [False, True])
@pytest.mark.parametrize(('num_images', 'size'), [(9, 4), (8, 4), (3, 4), (1, 2), (7, 1)])
def test_each_image_counts_once(num_images, size, own_batches):
    seen = []
    for rank in range(size):
        sampler = DistributedSampler(range(num_images), num_replicas=size, rank=rank)
        batches = {'batch_sampler': BatchSampler(sampler, 2, False)} if own_batches else {'sampler': sampler}
        loader = count_each_image_once(DataLoader(range(num_images), **batches))
        assert len(sampler) == len(list(sampler))
        seen += [int(image) for batch in loader for image in batch]
    assert sorted(seen) == list(range(num_images))


def test_counts_of_all_processes_make_one_accuracy(monkeypatch, generator):
    """Shards that end at different classes, and one without any image."""
    logits, labels = torch.randn(9, 6, generator=generator), torch.tensor([0, 1, 2, 3, 4, 5, 0, 1, 7])
    model, cpu = nn.Identity(), torch.device('cpu')
    expected = evaluate(model, [(logits, labels)], cpu)
    counts = []

    def gathered(self, value):
        counts.append(value)
        return counts

    monkeypatch.setattr(Processes, 'gathered', gathered)
    for shard in (slice(0, 5), slice(5, 5), slice(5, 9)):
        accuracy = evaluate(model, [(logits[shard], labels[shard])] if len(labels[shard]) else [], cpu)
    assert accuracy == expected


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('cuda:1', 'expected `--device` to be auto, cuda or cpu for several processes, .* got cuda:1'),
        ('mps', 'choose the GPUs with CUDA_VISIBLE_DEVICES'),
        ('cuda', 'expected a GPU for each of the 2 processes of this node, got 0'),
    ],
)
def test_devices_that_several_processes_cannot_have(name, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    with pytest.raises(TRGError, match=message):
        choose_placement(name, TWO)


def test_each_process_gets_its_own_gpu(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'set_device', chosen.append)
    placement = choose_placement('cuda', TWO, adjust_lr=True)
    assert (placement.device, placement.device_ids, chosen) == (torch.device('cuda:1'), [1], [1])
    assert (placement.distributed, placement.lr_factor) == (True, 2)


def test_a_single_process_of_torchrun_is_a_run_of_one_process(monkeypatch):
    for name, value in {'WORLD_SIZE': '1', 'RANK': '0', 'LOCAL_RANK': '0', 'LOCAL_WORLD_SIZE': '1'}.items():
        monkeypatch.setenv(name, value)
    with joined('cpu') as processes:
        assert processes == ALONE
        assert not torch.distributed.is_initialized()


@pytest.fixture
def _handlers():
    """Those of python's start, and afterwards what there was."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures('_handlers')
def test_a_single_process_keeps_its_signal_handlers():
    with pytest.raises(KeyboardInterrupt), StopSignals(ALONE) as signals:
        signal.raise_signal(signal.SIGINT)
    assert not signals.received


@pytest.mark.usefixtures('_handlers')
def test_a_process_that_fails_says_so_before_torchrun_ends_it():
    with pytest.raises(RuntimeError), StopSignals(TWO) as signals:
        raise RuntimeError('Connection closed by peer')
    signal.raise_signal(signal.SIGTERM)
    assert signals.received


@pytest.mark.usefixtures('_handlers')
def test_several_processes_only_note_a_signal():
    with StopSignals(TWO) as signals:
        signal.raise_signal(signal.SIGTERM)
        assert (signals.received, signals.interrupted) == (True, False)
        signal.raise_signal(signal.SIGINT)
        assert signals.interrupted
    signal.raise_signal(signal.SIGTERM)  # torchrun repeats that of a terminal
