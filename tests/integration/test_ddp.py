"""Two gloo processes through torchdistill's box: what Student4TRG wraps inside stays equal on all ranks.

The host starts NCCL only, so the processes are ours; the box, its DistributedSampler and the losses are real. All runs
share one launch. Without `gather`, the token graph is per rank: a rank's terms are those of its own images.
"""

import pytest
import torch
from helpers import assert_close, run_processes
from host import KD, TinyCnn, box_from, full_method, one_step, our_losses, train_epoch
from torch import distributed as dist

pytestmark = pytest.mark.slow

FULL = full_method(batch_size=4)
USES_LABEL = 'target: {uses_label: True}}\n        weight: '
ACCUMULATED = "optimizer: {key: 'SGD', grad_accum_step: 2, kwargs: {lr: 0.1}}"
# name -> YAML, and the parameters that must not move
RUNS = {
    'full method': (FULL, ()),
    'with KD': (full_method(KD, batch_size=4), ()),
    'accumulated gradients': (full_method(batch_size=4, optimizer=ACCUMULATED), ()),
    'frozen layer (landmine 23)': (
        FULL.replace("key: 'Student4TRG'", "key: 'Student4TRG'\n    frozen_modules: ['layer3']"),
        ('student_model.module.layer3',),
    ),
    'logit term of weight 0 (landmine 22)': (
        FULL.replace(USES_LABEL + '1.0', USES_LABEL + '0.0'),
        ('student_model.module.fc',),
    ),
    'one graph over both': (FULL.replace('tokens_per_image: null', 'gather: true'), ()),
    'projector without a loss': (
        FULL.replace('tokens_per_image: null', 'global_weight: 0.0'),
        ('projectors.layer4',),
    ),
}


def train(folder, text, distributed=True):
    """Trains two epochs, from other weights on each rank; returns what the tests look at."""
    torch.manual_seed(dist.get_rank())
    box = box_from(folder, text, num_images=16, distributed=distributed)
    start = {name: value.detach().clone() for name, value in box.student_model.named_parameters()}
    images = torch.cat([images for images, _, _ in box.train_data_loader])
    losses = [train_epoch(box, epoch) for epoch in range(box.num_epochs)]
    parts = [box.student_model, box.student_model.student_model, *box.student_model.projectors.values()]
    return {
        'start': start,
        'end': {name: value.detach() for name, value in box.student_model.named_parameters()},
        'images': images,
        'losses': losses,
        'keys': list(box.student_model.state_dict()),
        'types': [type(part).__name__ for part in parts],
        'temperature': our_losses(box)['trg'].current_temperature,
    }


def terms_with_and_without_the_other_rank(folder):
    """Our terms on this rank's images: in the distributed box, and in a box of this process alone, same weights."""
    torch.manual_seed(dist.get_rank())
    box = box_from(folder, full_method(), num_images=16, distributed=True)
    alone = box_from(folder, full_method())
    alone.org_teacher_model.load_state_dict(box.org_teacher_model.state_dict())
    alone.student_model.load_state_dict(box.student_model.state_dict())
    alone.student_model.projectors['layer4'].load_state_dict(box.student_model.projectors['layer4'].module.state_dict())
    alone.train_data_loader = list(box.train_data_loader)
    terms = []
    for each in (box, alone):
        one_step(each)
        terms.append({name: term.detach() for name, (_, term) in our_losses(each)['trg'].terms().items()})
    return terms


def reload_projectors(folder, ckpt):
    """Trains with a projector_ckpt, then builds another box that finds the file; returns the weights of both."""
    text = FULL.replace('      projectors:\n', f"      projector_ckpt: '{ckpt}'\n      projectors:\n")
    trained = train(folder, text)['end']['projectors.layer4.module.linear.weight']
    again = box_from(folder, text, distributed=True)
    return trained, again.student_model.projectors['layer4'].module.linear.weight.detach()


def all_runs(rank, folder):
    """What the two processes do; an error becomes a result, for the test that looks at it."""
    own = folder / f'rank{rank}'
    own.mkdir()
    runs = {name: lambda text=text: train(own, text) for name, (text, _) in RUNS.items()}
    runs['not distributed'] = lambda: train(own, FULL, distributed=False)
    runs['terms'] = lambda: terms_with_and_without_the_other_rank(own)
    runs['shared projector_ckpt'] = lambda: reload_projectors(own, folder / 'projectors.pt')
    runs['projector_ckpt of each rank'] = lambda: reload_projectors(own, own / 'projectors.pt')
    results = {}
    for name, run in runs.items():
        try:
            results[name] = run()
        except Exception as error:
            results[name] = repr(error)
    return results


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ddp')
    return run_processes(2, all_runs, folder, folder)


def _results(ranks, name):
    results = [rank[name] for rank in ranks]
    assert not any(isinstance(result, str) for result in results), results
    return results


@pytest.mark.parametrize('name', RUNS)
def test_landmine_21_ranks_stay_equal(ranks, name):
    first, second = _results(ranks, name)
    assert set(first['end']) == set(second['end'])
    for parameter, value in first['end'].items():
        assert torch.equal(value, second['end'][parameter]), f'{parameter} differs between the ranks'


@pytest.mark.parametrize('name', RUNS)
def test_every_parameter_with_a_loss_moves(ranks, name):
    fixed = RUNS[name][1]
    for result in _results(ranks, name):
        for parameter, value in result['end'].items():
            moved = not torch.equal(value, result['start'][parameter])
            assert moved != (bool(fixed) and parameter.startswith(fixed)), parameter


def test_without_the_inner_wrappers_the_ranks_drift_apart(ranks):
    """The comparison above can fail: the same training, undistributed, gives each rank a student of its own."""
    first, second = _results(ranks, 'not distributed')
    for parameter in ('student_model.layer4.0.weight', 'projectors.layer4.linear.weight'):
        assert not torch.equal(first['end'][parameter], second['end'][parameter])


def test_each_rank_sees_half_of_the_images(ranks):
    first, second = _results(ranks, 'full method')
    assert len(first['images']) == len(second['images']) == 8
    assert len(torch.cat([first['images'], second['images']]).unique(dim=0)) == 16
    assert first['losses'] != second['losses']


@pytest.mark.parametrize(
    ('fact', 'expected'),
    [
        ('types', ['Student4TRG', 'DistributedDataParallel', 'DistributedDataParallel']),
        ('keys', list(TinyCnn(8).state_dict())),
        ('temperature', 0.1),
    ],
)
def test_each_rank_has_wrapped_parts_the_plain_students_keys_and_the_epoch(ranks, fact, expected):
    assert [result[fact] for result in _results(ranks, 'full method')] == [expected, expected]


def test_graph_is_per_rank(ranks):
    for distributed, alone in _results(ranks, 'terms'):
        assert list(distributed) == ['local', 'global']
        for name, value in distributed.items():
            assert_close(value, alone[name].double(), rtol=1e-4)
    (first, _), (second, _) = _results(ranks, 'terms')
    assert first['local'] != second['local']


@pytest.mark.parametrize('name', ['shared projector_ckpt', 'projector_ckpt of each rank'])
def test_main_process_writes_the_projector_ckpt_and_all_ranks_have_it(ranks, name):
    """Also on two machines without a common disk, where rank 0 alone has the file that it wrote."""
    for trained, again in _results(ranks, name):
        assert torch.equal(trained, again)
