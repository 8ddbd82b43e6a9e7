"""Reading a hooked feature: which tensor it gives, and what it says when there is none."""

import re
from collections import OrderedDict

import pytest
import torch

from trg_torchdistill.io import read_feature

FEATURE = torch.zeros(2, 3)


def read(io_dict, path='layer4', io='output', side='student'):
    return read_feature(io_dict, path, io, side, 'TRGLoss')


def test_tensor_is_returned_as_it_is():
    assert read({'layer4': {'output': FEATURE, 'input': None}}) is FEATURE


def test_logits_under_the_path_of_the_model_itself():
    assert read({'.': {'output': FEATURE}}, '.') is FEATURE


@pytest.mark.parametrize(
    'value',
    [
        (FEATURE, None),
        [None, FEATURE],
        (None, (FEATURE, torch.ones(1))),
        OrderedDict(loss=None, last_hidden_state=FEATURE, pooler_output=torch.ones(1)),
        {'hidden_states': (FEATURE, torch.ones(1))},
        ('a name', FEATURE),
    ],
    ids=['attention', 'list', 'nested', 'ModelOutput', 'nested mapping', 'text first'],
)
def test_first_tensor_of_a_collection(value):
    assert read({'layer4': {'output': value}}) is FEATURE


@pytest.mark.parametrize(
    ('value', 'found'),
    [(None, 'NoneType'), ((), 'tuple'), ([1, 2], 'list'), ({}, 'dict'), ('text', 'str'), (3.0, 'float')],
    ids=repr,
)
def test_value_without_a_tensor(value, found):
    message = (
        f"`TRGLoss` expected the student's `layer4` output to be or to hold a tensor, got {found}; hook another module"
    )
    with pytest.raises(TypeError, match=f'^{re.escape(message)}$'):
        read({'layer4': {'output': value}})


def test_path_that_is_not_hooked():
    message = (
        "`TRGLoss` expected the teacher's `layr4` output among the hooked modules, got ['fc', 'layer4']; "
        "did you mean `layer4`?; add 'layr4' to `train.teacher.forward_hook.output`"
    )
    with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
        read({'.': {}, 'layer4': {}, 'fc': {}}, 'layr4', side='teacher')


def test_path_that_is_hooked_under_the_wrapper():
    with pytest.raises(ValueError, match=r'did you mean `projectors.layer4` or `student_model.layer4`'):
        read({'student_model.layer4': {}, 'projectors.layer4': {}, 'student_model.layer3': {}})


def test_other_end_of_the_module_is_hooked():
    message = (
        "`TRGLoss` expected the student's `layer4` output, got its input only; "
        "add 'layer4' to `train.student.forward_hook.output`"
    )
    with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
        read({'layer4': {'input': FEATURE}})


def test_hooked_module_did_not_run():
    message = "`TRGLoss` expected the student's `projectors.layer4` output, but the module did not run in this step; "
    with pytest.raises(ValueError, match=f'^{re.escape(message)}.*leave `train.student.wrapper:` empty'):
        read({'projectors.layer4': {}}, 'projectors.layer4')
