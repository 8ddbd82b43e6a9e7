"""The registration table is what the host finds, importing does no more, and YAML in docstrings builds."""

import inspect
import re
import subprocess
import sys
import textwrap

import pytest
import torch
import yaml
from torch import nn
from torchdistill.common.module_util import get_module
from torchdistill.core.interfaces.registry import (
    get_forward_proc_func,
    get_post_epoch_proc_func,
    get_pre_epoch_proc_func,
)
from torchdistill.losses.registry import get_high_level_loss
from torchdistill.models.registry import get_auxiliary_model_wrapper, get_model

import trg_torchdistill
from trg_torchdistill import io, losses, models, procs, registration, schedules, tokens, wrappers
from trg_torchdistill.losses import masks
from trg_torchdistill.registration import TABLE, register

KEYS = {
    'TRGLoss': 'middle-level loss',
    'TokenContextualLoss': 'middle-level loss',
    'Student4TRG': 'auxiliary model wrapper',
    'forward_logits_only': 'forward process',
    'pre_epoch_process_with_trg': 'pre-epoch process',
    'post_epoch_process_with_trg': 'post-epoch process',
}
PUBLIC = [trg_torchdistill, io, losses, masks, models, procs, schedules, tokens, wrappers]


def test_every_key_of_the_contract_is_in_the_table():
    table = {entry.key: entry.kind for entry in TABLE}
    assert {key: table.get(key) for key in KEYS} == KEYS
    assert len(table) == len(TABLE)


@pytest.mark.parametrize('entry', TABLE, ids=lambda entry: entry.key)
def test_host_finds_each_key(entry):
    assert entry.registry[entry.key] is entry.target
    assert entry.target.__name__ == entry.key
    assert 10 < len(entry.description) < 100


def test_second_registration_changes_nothing():
    before = [dict(entry.registry) for entry in TABLE]
    assert register() is None
    assert [entry.registry for entry in TABLE] == before


@pytest.mark.parametrize('entry', TABLE, ids=lambda entry: entry.key)
def test_foreign_key_is_refused_and_nothing_is_registered(monkeypatch, entry):
    """Even when the foreign key is the last of the table."""
    for other in TABLE:
        monkeypatch.delitem(other.registry, other.key)
    monkeypatch.setitem(entry.registry, entry.key, nn.Linear)
    message = (
        f'expected the {entry.kind} key `{entry.key}` to be free, got one registered by '
        '`torch.nn.modules.linear`; remove that package from `dependencies:`'
    )
    with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
        register()
    assert [other.key for other in TABLE if other.key in other.registry] == [entry.key]
    assert entry.registry[entry.key] is nn.Linear


PROBE = """
import json, logging, os, random, sys, warnings
import numpy, torch, torchvision, torchdistill
import torchdistill.core.distillation, torchdistill.models.official
from torchdistill.losses.registry import MIDDLE_LEVEL_LOSS_DICT

def state():
    loggers = {name: logger.level for name, logger in logging.root.manager.loggerDict.items()
               if isinstance(logger, logging.Logger) and not name.startswith('trg_torchdistill')}
    return [random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),
            list(warnings.filters), logging.root.level, list(logging.root.handlers), loggers, logging.raiseExceptions,
            dict(os.environ), sys.path[:], torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()]

before, keys = state(), set(MIDDLE_LEVEL_LOSS_DICT)
import trg_torchdistill
assert state() == before, [pair for pair in zip(before, state()) if pair[0] != pair[1]]
from trg_torchdistill.losses import LOSSES
assert set(MIDDLE_LEVEL_LOSS_DICT) - keys == {loss.__name__ for loss in LOSSES}
assert keys < set(MIDDLE_LEVEL_LOSS_DICT)
heavy = {'matplotlib', 'sklearn', 'trg_torchdistill.cli'} & set(sys.modules)
assert not heavy, heavy
first = sys.modules.pop('trg_torchdistill')
import trg_torchdistill
assert trg_torchdistill is not first
assert MIDDLE_LEVEL_LOSS_DICT['TRGLoss'] is first.TRGLoss
assert state() == before
print('imported twice')
"""


@pytest.mark.slow
def test_importing_changes_nothing_but_the_registries():
    """In a process of its own: random states, logging, warnings, environment and torch's settings are as before."""
    done = subprocess.run([sys.executable, '-c', PROBE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == 'imported twice\n'
    assert 'trg_torchdistill' not in done.stderr


def _yaml_blocks():
    """(name, parsed YAML) of each `YAML::` block in a docstring of the public modules."""
    owners = {}
    for module in PUBLIC:
        owners[module.__name__] = module
        for value in vars(module).values():
            if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__.startswith(
                'trg_torchdistill'
            ):
                owners[f'{value.__module__}.{value.__name__}'] = value
    for name, owner in sorted(owners.items()):
        documentation = inspect.getdoc(owner) or ''
        for block in re.findall(r'YAML::\n\n(.*?)(?:\n\n(?=\S)|\Z)', documentation, re.DOTALL):
            yield name, yaml.safe_load(textwrap.dedent(block))


BLOCKS = dict(_yaml_blocks())


def _assert_builds(block):
    """Builds what the block names, through the host's own functions where it has one; returns what was built."""
    (key, value), *_ = block.items()
    if key == 'dependencies':
        return [__import__(entry['name']).__name__ for entry in value]
    if key == 'train':
        registries = {'pre_epoch_process': get_pre_epoch_proc_func, 'post_epoch_process': get_post_epoch_proc_func}
        return [registries[name](target).__name__ for name, target in value.items()]
    if key == 'teacher':
        return [get_forward_proc_func(value['forward_proc']).__name__]
    if key == 'student':
        student = nn.ModuleDict({'layer4': nn.Identity()})
        config = value['auxiliary_model_wrapper']
        host = {'device': torch.device('cpu'), 'device_ids': None, 'distributed': False, 'student_model': student}
        wrapper = get_auxiliary_model_wrapper(config['key'], **config['kwargs'], **host)
        own = [path for path in value['forward_hook']['output'] if not path.startswith('student_model.')]
        assert own
        assert all(get_module(wrapper, path) is not None for path in own)
        return [type(module).__name__ for module in wrapper.modules()]
    if key == 'student_model':
        return [get_model(value['key'], **value['kwargs']) and value['key']]
    if key == 'student_tokens':
        cls = io.TokenOptions if 'key' in value else tokens.Tokenizer
        return [type(cls(**value)).__name__]
    if key == 'token_mask':
        return [type(masks.TokenMask(**value)).__name__]
    if key in ('temperature', 'local_weight'):
        cls = schedules.TemperatureSchedule if key == 'temperature' else schedules.WeightSchedule
        return [type(cls(**value)).__name__]
    total = get_high_level_loss({'key': 'WeightedSumLoss', 'kwargs': {'sub_terms': block}})
    return [type(loss).__name__ for loss, _ in total.term_dict.values()]


@pytest.mark.parametrize('name', BLOCKS)
def test_yaml_of_a_docstring_builds_what_it_documents(name):
    assert name.rsplit('.', 1)[-1] in _assert_builds(BLOCKS[name])


def test_every_entry_of_the_table_has_yaml_in_its_docstring():
    documented = {name.rsplit('.', 1)[-1] for name in BLOCKS}
    assert {entry.key for entry in TABLE} <= documented
    assert {'Tokenizer', 'TokenOptions', 'TokenMask', 'TemperatureSchedule', 'trg_torchdistill'} <= documented
    assert registration.__doc__.startswith('The one table')
