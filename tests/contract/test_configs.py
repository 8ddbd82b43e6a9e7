"""Every YAML in ``configs`` loads, names registered keys and their keywords, and differs from its baseline by TRG."""

import copy
import functools
import inspect
from pathlib import Path

import pytest
import torch
import torchvision
from torch.utils.data import DataLoader
from torchdistill.common import yaml_util
from torchdistill.core.interfaces import registry as processes
from torchdistill.losses import registry as losses
from torchdistill.models import registry as models
from torchdistill.optim import registry as optim

import trg_torchdistill  # noqa: F401  registers the keys
from configs.generator import __main__ as generator
from trg_torchdistill.cli.check.setup import without_data_tags
from trg_torchdistill.cli.check.unread_keys import check_datasets, unread_keys
from trg_torchdistill.cli.recipe.deferred import Deferred, load_deferred
from trg_torchdistill.cli.recipe.keys import check_config
from trg_torchdistill.cli.tasks.recognised import CLASSIFICATION

FOLDER = Path(__file__).parents[2] / 'configs'
CONFIGS = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob('*.yaml'))
DIGITS = [name for name in CONFIGS if name.startswith('sample/digits/')]
GENERATED = generator.files()
OFFICIAL = [name for name in CONFIGS if name.startswith('official/')]  # records of runs, which test_official.py holds
TRG = [name for name in CONFIGS if '/trg/' in name]
PAIRS = [
    ('sample/digits/kd.yaml', 'sample/digits/trg.yaml'),
    ('sample/digits/longtailed_kd.yaml', 'sample/digits/longtailed_trg.yaml'),
    *((name.replace('/trg/', '/kd/'), name) for name in TRG),
]
FROM_THE_HOST = {'device': None, 'device_ids': None, 'distributed': False, 'student_model': None}
OFFICIAL_TEACHER = './benchmarks/accuracy/results/cpu-teacher.pt'
TRG_TERMS = {'TRGLoss', 'TokenContextualLoss'}
LOGIT_TERMS = {'CrossEntropyLoss', 'KDLoss'}
DEPENDENCIES = [{'name': 'trg_torchdistill'}]


@functools.cache
def parsed(name):
    """The YAML with nothing built; shared, so it must not be changed."""
    return load_deferred(str(FOLDER / name))


@functools.cache
def resolved(name):
    """The YAML with everything built but data sets and models, which would download; shared too."""
    return without_data_tags(parsed(name))


def parse(name):
    return copy.deepcopy(parsed(name).data)


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


def model_builder(key):
    """What the example trainer finds under a key: torchvision's model first."""
    return vars(torchvision.models).get(key) or models.MODEL_DICT[key]


def test_all_configs_are_found():
    assert len(DIGITS) == 6
    assert {*DIGITS, *GENERATED, *OFFICIAL} == set(CONFIGS)
    assert {name for pair in PAIRS for name in pair} <= set(CONFIGS)
    assert len(TRG) == len([name for name in CONFIGS if '/kd/' in name]) == 27


@pytest.mark.parametrize('name', GENERATED)
def test_a_generated_config_is_as_the_generator_writes_it(name):
    written = (FOLDER / name).read_text(encoding='utf-8')
    assert written == GENERATED[name], 'run `python -m configs.generator`'


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_a_config_passes_the_check_without_its_data(name):
    check_config(resolved(name))
    check_datasets(parsed(name))
    assert unread_keys(parsed(name), CLASSIFICATION) == []


@pytest.mark.parametrize('name', CONFIGS)
def test_every_keyword_is_one_of_its_key(name):
    config = resolved(name).data
    for model in config['models'].values():
        bind(model_builder(model['key']), model['kwargs'])
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
    for name in ('pre_epoch_process', 'post_epoch_process'):
        assert train.get(name, f'{name}_with_trg') == f'{name}_with_trg'
    for loader in (train['train_data_loader'], train['val_data_loader'], config['test']['test_data_loader']):
        assert loader['dataset_id'] in config['datasets']
        bind(loader['sampler']['class_or_func'], loader['sampler']['kwargs'], None)
        bind(DataLoader, loader['kwargs'], None)


def test_a_misspelt_keyword_would_be_found():
    with pytest.raises(TypeError, match='num_class'):
        bind(models.MODEL_DICT['resnet8'], {'num_class': 10})
    with pytest.raises(TypeError, match='num_neighbours'):
        bind(
            loss_class('TRGLoss'),
            {**terms(resolved(PAIRS[0][1]).data)['trg']['criterion']['kwargs'], 'num_neighbours': 8},
        )


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
            assert path is None or path.startswith('./resource/ckpt/') or path == OFFICIAL_TEACHER
    for path, value in walk(config['datasets']):
        if path[-1] in ('root', 'list_file'):
            assert value.startswith('./resource/dataset/')


@pytest.mark.parametrize('name', [*DIGITS, *GENERATED])
def test_a_config_has_a_logit_term_a_frozen_teacher_and_the_wrapper_that_several_processes_need(name):
    config = parse(name)
    logit_terms = [term for term in terms(config).values() if term['criterion']['key'] in LOGIT_TERMS]
    assert [term['weight'] > 0 for term in logit_terms] == [True]
    for side in sides(config).values():
        is_shared = side['requires_grad'] and 'auxiliary_model_wrapper' not in side
        assert side['wrapper'] == ('DistributedDataParallel' if is_shared else None)
    assert parse('sample/digits/teacher.yaml')['dependencies'] == config['dependencies'] == DEPENDENCIES
    if 'teacher' in config['train']:
        assert config['train']['teacher']['requires_grad'] is False
        assert config['train']['pre_epoch_process'] == 'pre_epoch_process_with_trg'


@pytest.mark.parametrize('name', [name for pair in PAIRS for name in pair])
def test_a_student_reads_what_its_teacher_wrote(name):
    """A teacher is one that some YAML here trains, on as many classes, or has published weights."""
    read = parse(name)['models']['teacher_model']
    if read['src_ckpt'] is None:
        assert read['kwargs'].get('weights') == 'IMAGENET1K_V1' or read['kwargs'].get('pretrained') is True
        return
    alone = [parsed(other).get('models', 'model') for other in CONFIGS]
    written = [model for model in alone if model is not None and model['dst_ckpt'] == read['src_ckpt']]
    assert [(model['key'], model['kwargs']) for model in written] == [(read['key'], read['kwargs'])]


@pytest.mark.parametrize('name', [name for _, name in PAIRS if name in GENERATED])
def test_a_student_has_a_baseline_that_differs_in_the_loss_alone(name):
    student = Path(name).stem.partition('_from_')[0]
    baseline, config = parse(str(Path(name).parents[1] / 'ce' / f'{student}.yaml')), parse(name)
    assert baseline['datasets'] == config['datasets']
    for key in ('num_epochs', 'train_data_loader', 'val_data_loader', 'optimizer', 'scheduler'):
        assert baseline['train'][key] == config['train'][key]
    alone, taught = baseline['models']['model'], config['models']['student_model']
    assert (alone['key'], alone['kwargs']) == (taught['key'], taught['kwargs'])


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
    train['student'].pop('wrapper')
    train.pop('post_epoch_process', None)
    del config['models']['student_model']['dst_ckpt']
    return config, len(trg_terms)


@pytest.mark.parametrize(('baseline', 'trg'), PAIRS)
def test_a_pair_differs_in_trg_keys_only(baseline, trg):
    (plain, no_terms), (stripped, num_terms) = without_trg(parse(baseline)), without_trg(parse(trg))
    assert (no_terms, num_terms) == (0, 2 if trg in DIGITS else 1)
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
    config = yaml_util.load_yaml_file(str(FOLDER / name))
    dataset = config['datasets'][config['train']['train_data_loader']['dataset_id']]
    assert dataset.class_counts == counts
    image, _ = dataset[0]
    assert (image.shape, image.dtype) == ((3, 32, 32), torch.float32)
