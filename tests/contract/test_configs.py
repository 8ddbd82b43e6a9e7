"""Every YAML in ``configs`` loads, names registered keys and their keywords, and differs from its baseline by TRG."""

import inspect
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader
from torchdistill.common import yaml_util
from torchdistill.core.interfaces import registry as processes
from torchdistill.losses import registry as losses
from torchdistill.models import registry as models
from torchdistill.optim import registry as optim

import trg_torchdistill  # noqa: F401  registers the keys
from trg_torchdistill.cli.config import load_config
from trg_torchdistill.cli.deferred import Deferred, parse_deferred
from trg_torchdistill.cli.keys import check_config

FOLDER = Path(__file__).parents[2] / 'configs'
CONFIGS = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob('*.yaml'))
NUM_CONFIGS = 6
PAIRS = [
    ('sample/digits/kd.yaml', 'sample/digits/trg.yaml'),
    ('sample/digits/longtailed_kd.yaml', 'sample/digits/longtailed_trg.yaml'),
]
FROM_THE_HOST = {'device': None, 'device_ids': None, 'distributed': False, 'student_model': None}
TRG_TERMS = {'TRGLoss', 'TokenContextualLoss'}
LOGIT_TERMS = {'CrossEntropyLoss', 'KDLoss'}
DEPENDENCIES = [{'name': 'trg_torchdistill'}]


def load(name):
    return yaml_util.load_yaml_file(str(FOLDER / name))


def parse(name):
    return parse_deferred((FOLDER / name).read_text(encoding='utf-8'))


def bind(target, kwargs, *given):
    """Binds keywords to a signature; of ours, none has a ``**`` that would take a misspelt one."""
    signature = inspect.signature(target)
    if target.__module__.startswith('trg_torchdistill'):
        assert all(parameter.kind is not parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    signature.bind(*given, **kwargs)


def loss_class(key):
    return {**losses.LOSS_DICT, **losses.LOW_LEVEL_LOSS_DICT, **losses.MIDDLE_LEVEL_LOSS_DICT}[key]


def sides(config):
    return {name: config['train'][name] for name in ('teacher', 'student', 'model') if name in config['train']}


def terms(config):
    return config['train']['criterion']['kwargs']['sub_terms']


def test_all_configs_are_found():
    assert len(CONFIGS) == NUM_CONFIGS
    assert {name for pair in PAIRS for name in pair} <= set(CONFIGS)


@pytest.mark.parametrize('name', CONFIGS)
def test_a_config_passes_the_check_of_the_train_command(name):
    check_config(load_config(str(FOLDER / name)))


@pytest.mark.parametrize('name', CONFIGS)
def test_every_keyword_is_one_of_its_key(name):
    config = load(name)
    for model in config['models'].values():
        bind(models.MODEL_DICT[model['key']], model['kwargs'])
    for side in sides(config).values():
        assert side['forward_proc'] in processes.FORWARD_PROC_FUNC_DICT
        wrapper = side.get('auxiliary_model_wrapper')
        if wrapper is not None:
            bind(models.AUXILIARY_MODEL_WRAPPER_DICT[wrapper['key']], {**FROM_THE_HOST, **wrapper['kwargs']})
    for term in terms(config).values():
        bind(loss_class(term['criterion']['key']), term['criterion']['kwargs'])
        if 'criterion_wrapper' in term:
            wrapper = term['criterion_wrapper']
            bind(losses.LOSS_WRAPPER_DICT[wrapper['key']], wrapper['kwargs'], None)
    train = config['train']
    bind(optim.OPTIM_DICT[train['optimizer']['key']], train['optimizer']['kwargs'], None)
    bind(optim.SCHEDULER_DICT[train['scheduler']['key']], train['scheduler']['kwargs'], None)
    for loader in (train['train_data_loader'], train['val_data_loader'], config['test']['test_data_loader']):
        bind(DataLoader, loader['kwargs'], None)


def test_a_misspelt_keyword_would_be_found():
    with pytest.raises(TypeError, match='num_class'):
        bind(models.MODEL_DICT['resnet8'], {'num_class': 10})
    with pytest.raises(TypeError, match='num_neighbours'):
        bind(loss_class('TRGLoss'), {**terms(load(PAIRS[0][1]))['trg']['criterion']['kwargs'], 'num_neighbours': 8})


def walk(value, path=()):
    """Yields every key of nested mappings and lists with its path and value."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if isinstance(value, Deferred):
        children = [(value.tag, value.content)]
    for key, child in children:
        yield (*path, key), child
        yield from walk(child, (*path, key))


@pytest.mark.parametrize('name', CONFIGS)
def test_no_keywords_are_left_empty_and_no_path_is_of_one_machine(name):
    config = parse(name)
    assert [path for path, value in walk(config) if path[-1] == 'kwargs' and value is None] == []
    for model in config['models'].values():
        for path in (model.get('src_ckpt'), model.get('dst_ckpt')):
            assert path is None or path.startswith('./resource/ckpt/')


@pytest.mark.parametrize('name', CONFIGS)
def test_a_config_has_a_logit_term_a_frozen_teacher_and_no_outer_wrapper(name):
    config = parse(name)
    logit_terms = [term for term in terms(config).values() if term['criterion']['key'] in LOGIT_TERMS]
    assert [term['weight'] > 0 for term in logit_terms] == [True]
    assert [side['wrapper'] for side in sides(config).values()] == [None] * len(sides(config))
    assert parse('sample/digits/teacher.yaml')['dependencies'] == config['dependencies'] == DEPENDENCIES
    if 'teacher' in config['train']:
        assert config['train']['teacher']['requires_grad'] is False
        assert config['train']['pre_epoch_process'] == 'pre_epoch_process_with_trg'


def test_students_read_what_the_teacher_wrote():
    written = parse('sample/digits/teacher.yaml')['models']['model']
    for name in {name for pair in PAIRS for name in pair}:
        read = parse(name)['models']['teacher_model']
        assert read['src_ckpt'] == written['dst_ckpt']
        assert (read['key'], read['kwargs']) == (written['key'], written['kwargs'])


def test_no_two_configs_write_the_same_checkpoint():
    models_written = [parse(name)['models'] for name in CONFIGS]
    written = [(config.get('student_model') or config['model'])['dst_ckpt'] for config in models_written]
    assert len(set(written)) == len(written)


def without_trg(config):
    """The YAML with TRG's keys taken out: what must be the same in the baseline."""
    train = config['train']
    trg_terms = [name for name, term in terms(config).items() if term['criterion']['key'] in TRG_TERMS]
    for name in trg_terms:
        del terms(config)[name]
    for side in sides(config).values():
        side.pop('forward_hook', None)
    train['student'].pop('auxiliary_model_wrapper', None)
    train.pop('post_epoch_process', None)
    del config['models']['student_model']['dst_ckpt']
    return config, len(trg_terms)


@pytest.mark.parametrize(('baseline', 'trg'), PAIRS)
def test_a_pair_differs_in_trg_keys_only(baseline, trg):
    (plain, no_terms), (stripped, num_terms) = without_trg(parse(baseline)), without_trg(parse(trg))
    assert (no_terms, num_terms) == (0, 2)
    assert stripped == plain


def test_a_difference_beyond_trg_would_be_found():
    config, _ = without_trg(parse('sample/digits/trg.yaml'))
    config['train']['optimizer']['kwargs']['lr'] *= 2
    assert config != without_trg(parse('sample/digits/kd.yaml'))[0]


@pytest.mark.parametrize(
    ('name', 'counts'),
    [
        ('sample/digits/student.yaml', [5] * 10),
        ('sample/digits/kd.yaml', [5] * 10),
        ('sample/digits/longtailed_kd.yaml', [29, 21, 15, 11, 8, 6, 4, 3, 2, 1]),
    ],
)
def test_training_sets_have_the_sizes_that_the_comments_give(name, counts):
    config = load(name)
    dataset = config['datasets'][config['train']['train_data_loader']['dataset_id']]
    assert dataset.class_counts == counts
    image, _ = dataset[0]
    assert (image.shape, image.dtype) == ((3, 32, 32), torch.float32)
