"""Student4TRG: plain student outside, learned projections inside, and the file of the projections."""

import copy
import pickle
import re

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchdistill.models.wrapper import AuxiliaryModelWrapper

from trg_torchdistill import Student4TRG
from trg_torchdistill.wrappers import TokenProjector, check_outermost, plain_model, student

CPU = torch.device('cpu')
PROJECTORS = {
    'late': {'path': 'student_model.layer4', 'io': 'output', 'in_features': 4, 'out_features': 6},
    'early': {'path': 'student_model.layer3', 'io': 'input', 'in_features': 12, 'out_features': 5}
    | {'tokens': {'patch_size': 2}},
}


class Student(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer3 = nn.Conv2d(3, 4, 1)
        self.layer4 = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, images, scale=1):
        return self.layer4(self.layer3(images)) * scale


def wrap(student=None, **options):
    options = {'projectors': PROJECTORS, 'device': CPU, 'device_ids': None, 'distributed': False, **options}
    return Student4TRG(student_model=Student() if student is None else student, **options)


@pytest.fixture
def io_dict():
    return {
        'student_model.layer4': {'output': torch.randn(2, 4, 4, 6)},
        'student_model.layer3': {'input': torch.randn(2, 3, 4, 6)},
    }


def test_projector_is_one_linear_map_of_each_token():
    projector = TokenProjector(**PROJECTORS['late'])
    feature = torch.randn(2, 4, 3, 5)
    projected = projector(feature)
    assert projected.shape == (2, 15, 6)
    weight, bias = projector.linear.weight, projector.linear.bias
    for row in range(3):
        for column in range(5):
            expected = weight @ feature[1, :, row, column] + bias
            assert torch.allclose(projected[1, row * 5 + column], expected, atol=1e-6)


@pytest.mark.parametrize(
    ('tokens', 'shape', 'in_features', 'num_tokens'),
    [
        (None, (2, 4, 4, 6), 4, 24),
        ({'patch_size': 2}, (2, 4, 4, 6), 16, 6),
        ({'layout': 'bhwc'}, (2, 4, 6, 3), 3, 24),
        ({'num_prefix_tokens': 1}, (2, 10, 3), 3, 9),
        ({'grid_size': [2, 4]}, (2, 8, 3), 3, 8),
        ({'layout': 'bd'}, (2, 3), 3, 1),
    ],
)
def test_projector_takes_the_options_of_the_tokens(tokens, shape, in_features, num_tokens):
    projector = TokenProjector('student_model.layer4', 'output', in_features, 7, tokens)
    assert projector(torch.randn(shape)).shape == (2, num_tokens, 7)


def test_projector_says_which_width_it_found():
    message = (
        'expected tokens of width `in_features` = 4 from `student_model.layer4`, got 3; change `in_features:` to 3 '
        'under `projectors:` of `Student4TRG`'
    )
    with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
        TokenProjector(**PROJECTORS['late'])(torch.randn(2, 3, 4, 4))


def test_forward_is_the_students():
    student = Student().eval()
    wrapped = wrap(student)
    images = torch.randn(2, 3, 4, 6)
    assert isinstance(wrapped, AuxiliaryModelWrapper)
    assert torch.equal(wrapped(images), student(images))
    assert torch.equal(wrapped(images, scale=3), student(images, 3))


def test_secondary_forward_runs_each_projector_once(io_dict):
    wrapped, shapes = wrap(), {}
    for name, projector in wrapped.projectors.items():
        projector.register_forward_hook(lambda *args, name=name: shapes.update({name: tuple(args[2].shape)}))
    assert wrapped.secondary_forward(io_dict) is None
    assert shapes == {'late': (2, 24, 6), 'early': (2, 6, 5)}


def test_load_state_dict_takes_the_plain_students():
    wrapped, plain = wrap(), Student()
    projectors = copy.deepcopy(wrapped.projectors.state_dict())
    wrapped.load_state_dict(plain.state_dict(), strict=True)
    assert torch.equal(wrapped.student_model.layer3.weight, plain.layer3.weight)
    for name, value in wrapped.projectors.state_dict().items():
        assert torch.equal(value, projectors[name])
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "student_model.layer3.weight"'):
        wrapped.load_state_dict({f'student_model.{name}': value for name, value in plain.state_dict().items()})
    missing = wrapped.load_state_dict({}, strict=False).missing_keys
    assert missing == [name for name in plain.state_dict() if name != 'layer4.0.num_batches_tracked']


HOLDERS = {
    'average of the weights': AveragedModel,
    'module of the user': lambda wrapped: nn.ModuleDict({'net': wrapped}),
    'module around an average': lambda wrapped: nn.Sequential(AveragedModel(wrapped)),
    'DataParallel': nn.DataParallel,
    'pickled': lambda wrapped: nn.Sequential(pickle.loads(pickle.dumps(wrapped))),
}


@pytest.fixture(params=[False, True], ids=['alone', 'distributed'])
def distributed(request):
    """Whether the wrapper is in a process group, of this process alone."""
    if request.param:
        dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    yield request.param
    if request.param:
        dist.destroy_process_group()


def assert_goes_round(saved, loaded):
    """Strict, with the projections, into a module with other weights."""
    state = saved.state_dict()
    assert sum('projectors.' in name for name in state) == 4
    assert not torch.equal(next(saved.parameters()), next(loaded.parameters()))
    result = loaded.load_state_dict(copy.deepcopy(state), strict=True)
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    after, values = loaded.state_dict(), dict([*saved.named_parameters(), *saved.named_buffers()])
    assert after.keys() == state.keys() == values.keys()
    assert all(torch.equal(after[name], value) for name, value in values.items())


@pytest.mark.parametrize('hold', HOLDERS.values(), ids=HOLDERS)
def test_what_holds_the_wrapper_loads_what_it_saved(hold, distributed):
    assert_goes_round(hold(wrap(distributed=distributed)), hold(wrap(distributed=distributed)))


@pytest.mark.parametrize('distributed', [True], indirect=True)
def test_distributed_data_parallel_around_the_wrapper_goes_round(distributed):
    first, second = (nn.parallel.DistributedDataParallel(wrap()) for _ in range(2))
    assert_goes_round(first, second)


def test_the_state_dict_is_plain_in_a_process_group_and_in_an_average(distributed):
    wrapped, plain = wrap(distributed=distributed), Student()
    for outermost in (wrapped, AveragedModel(wrapped).module):
        state = outermost.state_dict()
        assert list(state) == list(plain.state_dict())
        assert list(outermost.state_dict(prefix='net.')) == [f'net.{name}' for name in state]
        plain.load_state_dict(state, strict=True)
        assert torch.equal(plain.layer3.weight, plain_model(wrapped).layer3.weight)
        outermost.load_state_dict(plain.state_dict(), strict=True, assign=True)


def test_arguments_of_the_state_dict_are_torchs():
    wrapped, plain = wrap(), Student()
    assert wrapped.state_dict(keep_vars=True)['layer3.weight'] is wrapped.student_model.layer3.weight
    destination = {}
    assert wrapped.state_dict(destination=destination) is destination
    assert list(destination) == list(plain.state_dict())
    with pytest.warns(FutureWarning, match='Positional args are being deprecated'):
        names = list(wrapped.state_dict({}, 'net.'))
    assert names[:2] == ['net.student_model.layer3.weight', 'net.student_model.layer3.bias']
    assert names[-4:] == [f'net.projectors.{name}.linear.{part}' for name in PROJECTORS for part in ('weight', 'bias')]


def test_projector_of_the_models_own_output():
    wrapped = wrap(
        projectors={'logits': {'path': 'student_model', 'io': 'output', 'in_features': 3, 'out_features': 2}}
    )
    wrapped.secondary_forward({'student_model': {'output': torch.randn(2, 3)}})
    assert list(wrapped.projectors) == ['logits']


def test_file_of_the_projections_goes_round_after_each_epoch(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    path, option = tmp_path / 'new' / 'folder' / 'projectors.pt', '~/new/folder/projectors.pt'
    first = wrap(projector_ckpt=option)
    assert not path.exists()
    first.post_epoch_process()
    first.projectors['late'].linear.weight.data.fill_(3.0)
    first.post_epoch_process()
    assert list(path.parent.iterdir()) == [path]
    second, other = wrap(projector_ckpt=option), wrap()
    for name, value in first.projectors.state_dict().items():
        assert torch.equal(second.projectors.state_dict()[name], value)
        assert not torch.equal(other.projectors.state_dict()[name], value)


@pytest.mark.parametrize(('option', 'is_main'), [('projectors.pt', False), (None, True)])
def test_only_the_main_process_writes_and_nothing_without_the_option(option, is_main, tmp_path, monkeypatch):
    monkeypatch.setattr(student, 'is_main_process', lambda: is_main)
    monkeypatch.chdir(tmp_path)
    wrap(projector_ckpt=option).post_epoch_process()
    assert list(tmp_path.iterdir()) == []


def test_outer_wrapper_is_named():
    for model in (wrap(), Student(), nn.DataParallel(Student())):
        check_outermost(model)
    with pytest.raises(ValueError, match='got DataParallel around it'):
        check_outermost(nn.DataParallel(wrap()))


@pytest.mark.parametrize('name', ['layer4', 'a_b', 'Ü'])
def test_names_of_projectors(name):
    assert list(wrap(projectors={name: PROJECTORS['late']}).projectors) == [name]


@pytest.mark.parametrize(
    ('name', 'wanted'),
    [
        *((name, 'be identifiers without dots') for name in ('a.b', 'a b', '4', '', 4, None, True)),
        *((name, 'differ from the attributes of a module') for name in ('values', 'training', 'forward', '_modules')),
    ],
)
def test_names_that_no_projector_can_have(name, wanted):
    message = f'expected the names under `projectors` to {wanted}, got {name!r}; change it under the `kwargs:`'
    with pytest.raises(ValueError, match=re.escape(message)):
        wrap(projectors={name: PROJECTORS['late']})
