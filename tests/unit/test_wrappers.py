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

from trg_torchdistill import Student4TRG, wrappers
from trg_torchdistill.wrappers import TokenProjector, outer_wrapper_error

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


def test_state_dict_is_the_plain_students():
    wrapped, plain = wrap(), Student()
    assert list(wrapped.state_dict()) == list(plain.state_dict())
    assert list(wrapped.state_dict(prefix='net.')) == [f'net.{name}' for name in plain.state_dict()]
    plain.load_state_dict(wrapped.state_dict(), strict=True)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, wrapped.student_model.state_dict()[name])


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
    after = loaded.state_dict()
    assert list(after) == list(state) == [name for name, _ in _values(saved)]
    assert all(torch.equal(after[name], value) for name, value in _values(saved))


def _values(module):
    """Parameters and buffers in the order of a state dict."""
    for path, part in module.named_modules():
        for name, value in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)):
            yield (f'{path}.{name}' if path else name), value


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
        assert list(outermost.state_dict()) == list(plain.state_dict())
        plain.load_state_dict(outermost.state_dict(), strict=True)
        outermost.load_state_dict(plain.state_dict(), strict=True, assign=True)


def test_arguments_of_the_state_dict_are_torchs():
    wrapped, plain = wrap(), Student()
    assert wrapped.state_dict(keep_vars=True)['layer3.weight'] is wrapped.student_model.layer3.weight
    destination = {}
    assert wrapped.state_dict(destination=destination) is destination
    assert list(destination) == list(plain.state_dict())
    with pytest.warns(FutureWarning, match='Positional args are being deprecated'):
        assert list(wrapped.state_dict({}, 'net.')) == [f'net.{name}' for name, _ in _values(wrapped)]


def test_parameters_are_the_students_and_the_projectors():
    names = [name for name, _ in wrap().named_parameters()]
    assert names[:2] == ['student_model.layer3.weight', 'student_model.layer3.bias']
    assert names[-4:] == [f'projectors.{name}.linear.{part}' for name in PROJECTORS for part in ('weight', 'bias')]


def test_projector_of_the_models_own_output():
    wrapped = wrap(
        projectors={'logits': {'path': 'student_model', 'io': 'output', 'in_features': 3, 'out_features': 2}}
    )
    wrapped.secondary_forward({'student_model': {'output': torch.randn(2, 3)}})
    assert list(wrapped.projectors) == ['logits']


def test_file_of_the_projections_goes_round(tmp_path):
    path = tmp_path / 'new' / 'folder' / 'projectors.pt'
    first = wrap(projector_ckpt=str(path))
    assert not path.exists()
    first.post_epoch_process()
    assert list(path.parent.iterdir()) == [path]
    second, other = wrap(projector_ckpt=str(path)), wrap()
    for name, value in first.projectors.state_dict().items():
        assert torch.equal(second.projectors.state_dict()[name], value)
        assert not torch.equal(other.projectors.state_dict()[name], value)


def test_file_of_the_projections_is_overwritten_by_each_epoch(tmp_path):
    wrapped = wrap(projector_ckpt=str(tmp_path / 'projectors.pt'))
    wrapped.post_epoch_process()
    wrapped.projectors['late'].linear.weight.data.fill_(3.0)
    wrapped.post_epoch_process()
    assert (wrap(projector_ckpt=str(tmp_path / 'projectors.pt')).projectors['late'].linear.weight == 3).all()


def test_file_of_the_projections_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    wrap(projector_ckpt='~/projectors.pt').post_epoch_process()
    assert (tmp_path / 'projectors.pt').is_file()


def test_only_the_main_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(wrappers, 'is_main_process', lambda: False)
    wrap(projector_ckpt=str(tmp_path / 'projectors.pt')).post_epoch_process()
    assert list(tmp_path.iterdir()) == []


def test_no_file_without_the_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrap().post_epoch_process()
    assert list(tmp_path.iterdir()) == []


def test_outer_wrapper_is_named():
    assert outer_wrapper_error(wrap()) is None
    assert outer_wrapper_error(Student()) is None
    assert outer_wrapper_error(nn.DataParallel(Student())) is None
    assert 'got DataParallel around it' in outer_wrapper_error(nn.DataParallel(wrap()))


@pytest.mark.parametrize('name', ['layer4', 'a_b', 'Ü'])
def test_names_of_projectors(name):
    assert list(wrap(projectors={name: PROJECTORS['late']}).projectors) == [name]


@pytest.mark.parametrize('name', ['a.b', 'a b', '4', '', 4, None, True])
def test_names_that_are_no_identifiers(name):
    message = f'expected the names under `projectors` to be identifiers without dots, got {name!r}; change it under'
    with pytest.raises(ValueError, match=re.escape(message)):
        wrap(projectors={name: PROJECTORS['late']})


@pytest.mark.parametrize('name', ['values', 'keys', 'training', 'type', 'forward', '_modules'])
def test_names_that_a_module_already_has(name):
    message = f'expected the names under `projectors` to differ from the attributes of a module, got {name!r}'
    with pytest.raises(ValueError, match=re.escape(message)):
        wrap(projectors={name: PROJECTORS['late']})
