"""Student4TRG beside each student wrapper of torchdistill: its paths, parts and files stay, and ours come to them."""

import copy
import pickle
import re

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchdistill.common.module_util import get_module
from torchdistill.models import registry
from torchdistill.models.wrapper import build_auxiliary_model_wrapper

from tests.integration.host import TinyCnn
from trg_torchdistill import Student4TRG
from trg_torchdistill.wrappers import plain_model

IN, OUT = {'path': 'student_model.layer4', 'io': 'output'}, {'path': 'model.pool', 'io': 'output'}
ADAPTER = {'conv_kwargs': {'in_channels': 8, 'out_channels': 4, 'kernel_size': 1}}
# key -> its `kwargs:`
WRAPPERS = {
    'Student4KnowledgeReview': {
        'abfs': [{**IN, 'kwargs': {'in_channels': 8, 'mid_channels': 4, 'out_channels': 8}}],
        'sizes': [1],
    },
    'Student4ICKD': {'embeddings': {'embed1': {**IN, 'in_channels': 8, 'out_channels': 4}}},
    'Student4FactorTransfer': {
        'input_module_path': 'student_model.layer4',
        'translator_kwargs': {'num_input_channels': 8, 'num_output_channels': 4},
    },
    'Student4KTAAD': {
        'input_module_path': 'student_model.layer4',
        'feature_adapter_config': {**ADAPTER, 'bn_kwargs': {'num_features': 4}, 'relu_kwargs': {}},
        'affinity_adapter_config': ADAPTER,
    },
    'Connector4DAB': {'connectors': {'c': {**IN, 'conv2d_kwargs': ADAPTER['conv_kwargs']}}},
    'VariationalDistributor4VID': {
        'regressors': {
            'r': {
                **IN,
                'kwargs': {
                    'in_channels': 8,
                    'middle_channels': 4,
                    'out_channels': 4,
                    'eps': 0.001,
                    'init_pred_var': 5.0,
                },
            }
        }
    },
    'VarianceBranch4PAD': {
        'input_module': {'path': 'student_model.pool', 'io': 'output'},
        'feat_dim': 8,
        'var_estimator_ckpt': './var_estimator.pt',
    },
    'Linear4CCKD': {'input_module': OUT, 'linear_kwargs': {'in_features': 8, 'out_features': 4}},
    'Linear4CRD': {'input_module_path': 'model.pool', 'linear_kwargs': {'in_features': 8, 'out_features': 4}},
    'SSWrapper4SSKD': {'input_module': OUT, 'feat_dim': 8, 'ss_module_ckpt': './ss_module.pt'},
    'SRDModelWrapper': {
        'input_module': {'path': 'model.layer4', 'io': 'output'},
        'norm_kwargs': {'num_features': 4},
        'linear_kwargs': {'in_features': 8, 'out_features': 4},
    },
}
FILES = {'VarianceBranch4PAD': ['var_estimator.pt'], 'SSWrapper4SSKD': ['ss_module.pt']}
OTHERS = {'EmptyModule', 'Teacher4FactorTransfer', 'HeadRCNN'}  # no student in it, of the teacher, of detectors
FROM_HOST = {'device': torch.device('cpu'), 'device_ids': None, 'distributed': False}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def block(key):
    return copy.deepcopy({'key': key, 'kwargs': WRAPPERS[key]})


def alone(key, student):
    return build_auxiliary_model_wrapper({'auxiliary_model_wrapper': block(key)}, student_model=student, **FROM_HOST)


def layer4(key):
    return f'{"student_model" if "student_model" in str(WRAPPERS[key]) else "model"}.layer4'


def beside(key, student=None, **options):
    projectors = {'late': {'path': layer4(key), 'io': 'output', 'in_features': 8, 'out_features': 6}}
    options = {'inner': block(key), 'projectors': projectors, **FROM_HOST, **options}
    return Student4TRG(student_model=student or TinyCnn(8), **options)


def run(wrapper):
    """The outputs of all modules in one step of the host, by path: a forward pass, then what the wrapper adds."""
    seen = {}
    paths = {module: path for path, module in wrapper.named_modules() if path}
    for module in paths:
        module.register_forward_hook(lambda module, values, result: seen.__setitem__(paths[module], (values, result)))
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    output = wrapper(images, {}) if hasattr(wrapper, 'empty') else wrapper(images)
    io_dict = {path: {'input': values[0], 'output': result} for path, (values, result) in seen.items()}
    wrapper.secondary_forward(io_dict)
    return output, {path: result for path, (_, result) in seen.items()}


def test_all_wrappers_of_the_host_are_here():
    of_host = {key for key, cls in registry.AUXILIARY_MODEL_WRAPPER_DICT.items() if 'trg' not in cls.__module__}
    assert of_host == {*WRAPPERS, *OTHERS}


@pytest.mark.parametrize('key', WRAPPERS)
def test_paths_values_and_files_are_those_of_the_wrapper_alone(key, tmp_path):
    torch.manual_seed(0)
    theirs = alone(key, TinyCnn(8))
    torch.manual_seed(0)
    ours = beside(key)
    added = ['projectors', 'projectors.late', 'projectors.late.linear']
    assert [path for path, _ in ours.named_modules()] == [*(path for path, _ in theirs.named_modules()), *added]
    assert get_module(ours, f'{layer4(key)}.-1') is plain_model(ours).layer4[-1]
    for mode in (True, False):
        ours.train(mode)
        assert ours.inner.training is mode
        (expected, outputs), (output, found) = run(theirs.train(mode)), run(ours)
        assert torch.equal(output, expected)
        assert [found.pop(path).shape for path in added[1:]] == [(4, 16, 6)] * 2
        torch.testing.assert_close(found, outputs, rtol=0, atol=0)
    ours.post_epoch_process()
    assert [path.name for path in tmp_path.iterdir()] == FILES.get(key, [])


@pytest.mark.parametrize('key', WRAPPERS)
def test_the_state_dict_is_the_plain_students_and_an_average_keeps_all_parts(key):
    ours, plain = beside(key), TinyCnn(8)
    plain.load_state_dict(ours.state_dict(), strict=True)
    again = nn.Sequential(AveragedModel(pickle.loads(pickle.dumps(ours))))
    parts = {'n_averaged', *(f'module.{name}' for name in alone(key, plain).state_dict())}
    parts |= {f'module.projectors.late.linear.{part}' for part in ('weight', 'bias')}
    assert again.state_dict().keys() == {f'0.{name}' for name in parts}
    nn.Sequential(AveragedModel(beside(key))).load_state_dict(again.state_dict(), strict=True)
    assert ours.load_state_dict(TinyCnn(8).state_dict(), strict=True).missing_keys == []


def test_what_takes_the_place_of_a_part_does_so_for_the_inner_wrapper():
    ours = nn.SyncBatchNorm.convert_sync_batchnorm(beside('SRDModelWrapper'))
    assert isinstance(ours.inner.norm_layer, nn.SyncBatchNorm)
    assert ours.inner.norm_layer is ours.norm_layer
    assert ours.to(torch.float64).inner.norm_layer.running_mean.dtype == torch.float64


def test_the_parts_are_wrapped_one_by_one_in_a_process_group():
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    try:
        ours = beside('SRDModelWrapper', distributed=True)
    finally:
        dist.destroy_process_group()
    wrapped = [name for name, part in ours.named_modules() if isinstance(part, nn.parallel.DistributedDataParallel)]
    assert wrapped == ['model', 'linear', 'norm_layer', 'projectors.late']
    assert list(ours.state_dict()) == list(TinyCnn(8).state_dict())
    assert get_module(ours, 'model.layer4') is plain_model(ours).layer4


def test_a_student_that_no_module_holds_keeps_its_state_dict():
    ours = beside('SRDModelWrapper', inner={'key': 'EmptyModule'}, projectors=None)
    assert list(ours.state_dict()) == list(TinyCnn(8).state_dict())
    assert list(ours.parameters()) == []


SRD = {'key': 'SRDModelWrapper', 'kwargs': WRAPPERS['SRDModelWrapper']}


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            {'inner': None, 'projectors': None},
            'expected `projectors`, `inner` or `token_mask`, got none of them; change it under',
        ),
        ({'inner': {**SRD, 'key': 'SRDModelWraper'}}, "got 'SRDModelWraper'; did you mean `SRDModelWrapper`?"),
        ({'inner': {**SRD, 'key': 'Student4TRG'}}, 'with the key of another registered auxiliary model wrapper, got'),
        ({'inner': ['SRDModelWrapper']}, 'expected `inner` to be {key, kwargs} with the key of another registered'),
        ({'inner': {'key': 'SRDModelWrapper', 'kwargs': {'norm': 1}}}, '`SRDModelWrapper` refused its arguments, '),
        ({'find_unused_parameters': True}, 'expected `find_unused_parameters` under the `kwargs:` of `inner`, got it'),
        (
            {
                'projectors': {
                    'a': {'path': 'student_model.layer4', 'io': 'output', 'in_features': 8, 'out_features': 6}
                }
            },
            "to be a module path that begins with 'model' or 'linear' or 'norm_layer', got 'student_model.layer4'; did "
            'you mean `model.layer4`?',
        ),
    ],
)
def test_what_cannot_stand_there_is_told(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        beside('SRDModelWrapper', **options)
