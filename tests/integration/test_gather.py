"""`gather: true`: gradients over gloo processes are those of one process with the joined batch.

Student and projection are wrapped in DistributedDataParallel one by one, as `Student4TRG` does it; the batches of the
processes have unequal sizes. The student has no normalisation over the batch, which would depend on its split.
"""

import itertools

import pytest
import torch
from helpers import assert_close, gradient_of, run_processes
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from trg_torchdistill import TRGLoss
from trg_torchdistill.gather import Share
from trg_torchdistill.wrappers import TokenProjector

pytestmark = pytest.mark.slow

NUM_IMAGES = 12
SPLITS = {2: ([6, 6], [7, 5]), 4: ([3, 3, 3, 3], [5, 4, 2, 1])}
UNLIKE = {2: [3, 1], 4: [3, 1, 2, 2]}
PATHS = {
    'student_module_path': 'map',
    'student_module_io': 'output',
    'teacher_module_path': 'map',
    'teacher_module_io': 'output',
    'projection_module_path': 'projected',
}
VARIANTS = {
    'defaults': {},
    'other reductions': {'local_reduction': 'mean', 'global_reduction': 'sum'},
    'other choices': {
        'kl_direction': 'student_teacher',
        'row_distribution': 'softmax_edges',
        'normalize_tokens': False,
    },
    'local alone': {'global_weight': 0, 'num_neighbors': 3},
    'global alone': {'local_weight': 0},
    'padding': {'token_mask': {'path': 'mask'}},
    'padding, other choices': {
        'token_mask': {'path': 'mask'},
        'local_reduction': 'mean',
        'global_reduction': 'sum',
        'edges': 'union',
        'queue_size': 40,
    },
}
# Of 3 x 3 pixels an image; where the last process has five images or three, none of its tokens counts.
COUNTED = [9, 1, 0, 5, 3, 9, 4, 0, 0, 0, 0, 0]
PRECISIONS = {'float64': 1e-12, 'float32': 1e-6}


def mask_of(images):
    """The mask of the images; each has its number in a pixel."""
    counted = torch.tensor([COUNTED[int(image[0, 0, 0])] for image in images])
    return (torch.arange(9) < counted[:, None]).view(-1, 3, 3)


def gradients(images, dtype, options, wrap):
    """Gradient of each model in one step on these images, and the loss; the projection is for the global term alone."""
    torch.manual_seed(0)
    student, teacher = nn.Conv2d(3, 4, 3, 2, dtype=dtype), nn.Conv2d(3, 6, 3, 2, dtype=dtype)
    projector = TokenProjector('student_model', 'output', 4, 6).to(dtype)
    models = {'student': wrap(student)} | ({'projector': wrap(projector)} if options.get('global_weight') != 0 else {})
    student_map = models['student'](images)
    with torch.no_grad():
        teacher_map = teacher(images)
    features = {'map': {'output': student_map}, 'mask': {'output': mask_of(images)}}
    if 'projector' in models:
        features['projected'] = {'output': models['projector'](student_map)}
    loss = TRGLoss(**PATHS, tokens_per_image=None, **options)
    with torch.no_grad():
        loss(features, {'map': {'output': teacher_map}})  # fills a queue
    value = loss(features, {'map': {'output': teacher_map}})
    value.backward()
    found = {name: torch.cat([each.grad.flatten() for each in model.parameters()]) for name, model in models.items()}
    return found, value.detach()


def curvature(feature_map, direction, **options):
    """The product of the Hessian of TRG's loss with a direction, for this process's part of the student's map."""
    feature_map = feature_map.clone().requires_grad_()
    loss = TRGLoss(**PATHS | {'projection_module_path': None}, tokens_per_image=None, num_neighbors=3, **options)
    value = loss({'map': {'output': feature_map}}, {'map': {'output': feature_map.detach().sin()}})
    (gradient,) = torch.autograd.grad(value, feature_map, create_graph=True)
    return gradient_of((gradient * direction).sum(), feature_map)


def maps_and_directions(num_images):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, num_images, 3, 2, 2, generator=generator, dtype=torch.float64)


def curvature_of_rank(rank):
    sizes = UNLIKE[dist.get_world_size()]
    feature_maps, directions = (each.split(sizes)[rank] for each in maps_and_directions(sum(sizes)))
    return curvature(feature_maps, directions, gather=True)


def batch(dtype):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(NUM_IMAGES, 3, 9, 9, generator=generator, dtype=torch.float64)
    images[:, 0, 0, 0] = torch.arange(NUM_IMAGES)
    return images.to(dtype)


def all_gradients(rank):
    """By split, precision, variant and `gather`; without it, of one split in one precision."""
    runs = [(*run, True) for run in itertools.product((0, 1), PRECISIONS, VARIANTS)]
    results = {}
    for split, precision, name, gather in (*runs, *((0, 'float64', name, False) for name in VARIANTS)):
        dtype = getattr(torch, precision)
        images = batch(dtype).split(SPLITS[dist.get_world_size()][split])[rank]
        options = VARIANTS[name] | {'gather': gather}
        results[split, precision, name, gather] = gradients(images, dtype, options, DistributedDataParallel)
    return results


def queue_of_rank(rank):
    """The queue after two batches, of which this process has its own part."""
    loss = TRGLoss(**PATHS | {'projection_module_path': None}, tokens_per_image=None, gather=True, queue_size=30)
    for step in range(2):
        torch.manual_seed(10 * step + rank)
        features = {'map': {'output': torch.randn(2 + rank % 2, 4, 2, 2)}}
        loss(features, features)
    return loss.queue.tokens


def padding_of_rank(rank):
    """Loss and gradient of a batch in which no token of any process counts."""
    feature_map = torch.full((2 + rank % 2, 4, 2, 2), torch.nan, requires_grad=True)
    options = {'projection_module_path': None, 'token_mask': {'path': 'mask'}}
    features = {'map': {'output': feature_map}, 'mask': {'output': torch.zeros(2 + rank % 2, 2, 2)}}
    value = TRGLoss(**PATHS | options, gather=True)(features, features)
    return value.detach(), gradient_of(value, feature_map)


def all_results(rank):
    tokens = torch.arange(6.0).view(-1, 2)[: 2 + rank % 2].requires_grad_()
    share = Share.of(tokens)
    gathered = share.gather(tokens)
    half = share.gather(tokens.detach().bfloat16())
    drawn = TRGLoss(**PATHS, max_tokens=64, gather=True).tokens_an_image(4, 100)
    return {
        'gradients': all_gradients(rank),
        'rows': share.rows,
        'gathered': gathered.detach(),
        'dtype of bfloat16': half.dtype,
        'gradient of the sum': gradient_of((rank + 1) * gathered.sum(), tokens),
        'drawn of 64': drawn,
        'curvature': curvature_of_rank(rank),
        'queue': queue_of_rank(rank),
        'padding': padding_of_rank(rank),
    }


@pytest.fixture(scope='module', params=SPLITS)
def ranks(request, tmp_path_factory):
    return run_processes(request.param, all_results, tmp_path_factory.mktemp('gather'))


def _distance(results, expected):
    """The largest relative error, in the norm, of a model's gradient."""
    assert set(results) == set(expected)
    return max(float((results[name] - grad).norm() / grad.norm()) for name, grad in expected.items())


@pytest.mark.parametrize('name', VARIANTS)
@pytest.mark.parametrize('precision', PRECISIONS)
@pytest.mark.parametrize('split', [0, 1], ids=['equal batches', 'unequal batches'])
def test_gradients_are_those_of_the_joined_batch(ranks, split, precision, name):
    dtype = getattr(torch, precision)
    expected, loss = gradients(batch(dtype), dtype, VARIANTS[name], lambda model: model)
    found = [rank['gradients'][split, precision, name, True] for rank in ranks]
    for own, _ in found:
        assert _distance(own, expected) < PRECISIONS[precision]
    mean = torch.stack([value for _, value in found]).mean()
    assert abs(float(mean / loss) - 1) < PRECISIONS[precision]


@pytest.mark.parametrize('name', VARIANTS)
def test_without_gather_they_are_others(ranks, name):
    """The comparison above can fail: a graph for each process is another loss."""
    expected, _ = gradients(batch(torch.float64), torch.float64, VARIANTS[name], lambda model: model)
    for rank in ranks:
        assert _distance(rank['gradients'][0, 'float64', name, False][0], expected) > 1e-3


def test_the_queue_is_that_of_all_processes(ranks):
    assert len(ranks[0]['queue']) == 30
    for result in ranks[1:]:
        assert torch.equal(result['queue'], ranks[0]['queue'])


def test_batches_of_padding_on_all_processes_are_a_zero_that_backpropagates(ranks):
    for result in ranks:
        value, gradient = result['padding']
        assert value == 0
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_tokens_stand_in_the_order_of_the_ranks(ranks):
    parts = [torch.arange(6.0).view(-1, 2)[: 2 + rank % 2] for rank in range(len(ranks))]
    for rank, result in enumerate(ranks):
        assert torch.equal(result['gathered'], torch.cat(parts))
        assert torch.equal(result['gathered'][result['rows'].start : result['rows'].stop], parts[rank])


def test_gradients_of_all_processes_add_up(ranks):
    for result in ranks:
        assert torch.equal(
            result['gradient of the sum'], torch.full((len(result['rows']), 2), sum(range(len(ranks) + 1)) * 1.0)
        )


def test_half_precision_is_gathered_in_float32(ranks):
    assert {result['dtype of bfloat16'] for result in ranks} == {torch.float32}


def test_max_tokens_is_the_cap_of_the_whole_graph(ranks):
    assert [result['drawn of 64'] for result in ranks] == [8 if len(ranks) == 2 else 4] * len(ranks)


@pytest.mark.parametrize('name', VARIANTS)
def test_in_one_process_gather_changes_nothing(name):
    images = batch(torch.float32)
    results = [
        gradients(images, torch.float32, VARIANTS[name] | {'gather': gather}, lambda model: model)
        for gather in (True, False)
    ]
    assert torch.equal(results[0][1], results[1][1])
    assert _distance(results[0][0], results[1][0]) == 0


def test_second_derivatives_are_those_of_the_joined_batch(ranks):
    """Each process's loss is scaled for a mean of gradients over all, so its derivatives are as many times as large."""
    found = torch.cat([result['curvature'] for result in ranks]) / len(ranks)
    expected = curvature(*maps_and_directions(sum(UNLIKE[len(ranks)])))
    assert_close(found, expected, rtol=1e-10, atol=1e-10)
