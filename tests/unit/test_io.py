"""Reading a hooked feature: which tensor it gives, and what it says when there is none."""

import re
from collections import OrderedDict

import pytest
import torch

from trg_torchdistill.io import TokenOptions, default_entry, read_feature

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
        OrderedDict(loss=None, last_hidden_state=FEATURE, pooler_output=None),
        {'hidden_states': (FEATURE, torch.ones(1))},
        ('a name', FEATURE),
    ],
    ids=['tensor', 'attention', 'list', 'nested', 'ModelOutput', 'nested mapping', 'text first'],
)
def test_first_tensor_of_a_collection(value):
    assert read({'layer4': {'output': value, 'input': None}}) is FEATURE


OTHER = torch.ones(1)


@pytest.mark.parametrize(
    ('value', 'key'),
    [
        (OrderedDict(loss=None, last_hidden_state=FEATURE, pooler_output=OTHER), 'last_hidden_state'),
        ({'aux': OTHER, 'out': (None, FEATURE)}, 'out'),
        ({0: OTHER, 1: FEATURE}, '1'),
        ({'out': FEATURE}, 'out'),
        ((None, {'aux': OTHER, 'out': FEATURE}), 'out'),
    ],
    ids=['ModelOutput', 'backbone', 'pyramid', 'the only one', 'in a tuple'],
)
def test_key_is_the_entry_of_a_mapping(value, key):
    assert read_feature({'map': {'output': value}}, 'map', 'output', 'teacher', 'TRGLoss', key) is FEATURE


SEVERAL = {'out': FEATURE, 'aux': OTHER, 'loss': None}


@pytest.mark.parametrize(
    ('value', 'key', 'options', 'message'),
    [
        (SEVERAL, None, 'student_tokens', "to hold one tensor, got a mapping with ['out', 'aux']; add `key: 'out'`, or "
         'another of them, to `student_tokens:` of `TRGLoss`'),
        (SEVERAL, None, None, "to hold one tensor, got a mapping with ['out', 'aux']; hook a module that returns one "
         'tensor'),
        (SEVERAL, 'uot', 'tokens', "to have the entry 'uot', got ['out', 'aux']; did you mean `out`?; change `key:` of "
         '`tokens:`'),
        (SEVERAL, 'loss', 'tokens', "to have the entry 'loss', got ['out', 'aux']; change `key:` of `tokens:`"),
        ((FEATURE, OTHER), 'out', 'tokens', "to be a mapping with the entry 'out', got no mapping; take `key:` out of "
         '`tokens:`'),
    ],
    ids=['no key', 'no key, no options', 'unknown', 'without a tensor', 'no mapping'],
)  # fmt: skip
def test_key_that_does_not_fit(value, key, options, message):
    with pytest.raises(ValueError, match=f"^`TRGLoss` expected the student's `map` output {re.escape(message)}$"):
        read_feature({'map': {'output': value}}, 'map', 'output', 'student', 'TRGLoss', key, options)


@pytest.mark.parametrize('key', [3, '', True, ['out']], ids=repr)
def test_key_is_a_word(key):
    with pytest.raises(TypeError, match='expected `key` to be a non-empty string, got'):
        TokenOptions(key=key)


def test_the_key_of_a_pyramid_without_quotes():
    with pytest.raises(TypeError, match=r"got 3 \(a number in YAML; write '3'\)"):
        TokenOptions(key=3)


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


MAP, SMALLER = torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 4, 4)


@pytest.mark.parametrize(
    ('value', 'name'),
    [
        (MAP, None),
        ({'out': MAP}, None),
        (OrderedDict(aux=SMALLER, out=MAP), 'out'),
        (OrderedDict([('0', MAP), ('1', MAP), ('pool', SMALLER)]), '1'),
        (OrderedDict(logits=FEATURE, hidden_states=(FEATURE, FEATURE)), 'logits'),
    ],
)
def test_of_several_maps_the_last_is_taken_where_nobody_says_which(value, name):
    found, tensor = default_entry(value)
    assert found == name
    assert tensor is (FEATURE if name == 'logits' else MAP)


def test_a_value_without_tensors_has_no_entry():
    assert default_entry({'loss': None}) == (None, None)
