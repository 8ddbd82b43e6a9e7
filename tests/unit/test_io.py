"""Reading a hooked feature: which tensor it gives, and what it says when there is none."""

import re
from collections import OrderedDict

import pytest
import torch

from trg_torchdistill.io import read_feature

FEATURE = torch.zeros(2, 3)


def read(io_dict, path='layer4', io='output', side='student'):
    return read_feature(io_dict, path, io, side, 'TRGLoss')


def test_logits_under_the_path_of_the_model_itself():
    assert read({'.': {'output': FEATURE}}, '.') is FEATURE


@pytest.mark.parametrize(
    'value',
    [
        FEATURE,
        (FEATURE, None),
        [None, FEATURE],
        (None, (FEATURE, torch.ones(1))),
        OrderedDict(loss=None, last_hidden_state=FEATURE, pooler_output=torch.ones(1)),
        {'hidden_states': (FEATURE, torch.ones(1))},
        ('a name', FEATURE),
    ],
    ids=['tensor', 'attention', 'list', 'nested', 'ModelOutput', 'nested mapping', 'text first'],
)
def test_first_tensor_of_a_collection(value):
    assert read({'layer4': {'output': value, 'input': None}}) is FEATURE


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


@pytest.mark.parametrize(
    ('io_dict', 'path', 'message'),
    [
        (
            {'.': {}, 'layer4': {}, 'fc': {}},
            'layr4',
            "`TRGLoss` expected the student's `layr4` output among the hooked modules, got ['fc', 'layer4']; "
            "did you mean `layer4`?; add 'layr4' to `train.student.forward_hook.output`",
        ),
        (
            {'student_model.layer4': {}, 'projectors.layer4': {}},
            'layer4',
            "`TRGLoss` expected the student's `layer4` output among the hooked modules, got ['projectors.layer4', "
            "'student_model.layer4']; did you mean `projectors.layer4` or `student_model.layer4`?; add 'layer4' to "
            '`train.student.forward_hook.output`',
        ),
        (
            {'layer4': {'input': FEATURE}},
            'layer4',
            "`TRGLoss` expected the student's `layer4` output, got its input only; "
            "add 'layer4' to `train.student.forward_hook.output`",
        ),
        (
            {'projectors.layer4': {}},
            'projectors.layer4',
            "`TRGLoss` expected the student's `projectors.layer4` output, but the module did not run in this step; "
            'hook a module that the forward pass calls. A projector of `Student4TRG` does not run when the student is '
            'wrapped from outside: leave `train.student.wrapper:` empty, `Student4TRG` wraps its parts itself',
        ),
    ],
    ids=['not hooked', 'hooked under the wrapper', 'other end is hooked', 'did not run'],
)
@pytest.mark.parametrize('side', ['student', 'teacher'])
def test_feature_that_is_not_there(io_dict, path, message, side):
    message = message.replace("the student's", f"the {side}'s").replace('train.student', f'train.{side}')
    with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
        read(io_dict, path, side=side)
