"""The tasks of YAMLs: how they are told apart, what the trainers' folders hold, and models of texts by their names."""

import sys

import pytest
import torch

from tests.integration.tiny_bert import save, texts_yaml
from trg_torchdistill.cli.main import main
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.deferred import load_deferred
from trg_torchdistill.cli.tasks.recognised import CLASSIFICATION, OTHERS, task_of
from trg_torchdistill.cli.tasks.task import packages_of, trainer_folder
from trg_torchdistill.cli.tasks.text_classification import RandomTexts, TextClassification
from trg_torchdistill.cli.tasks.text_models import model_config, special_ids
from trg_torchdistill.errors import TRGError

TEXT = next(task for task in OTHERS if isinstance(task, TextClassification))
PATH = ('models', 'student_model')


def config(**sections):
    return Config(None, '', {'datasets': {}, 'train': {}, **sections})


def named(name, **kwargs):
    """A YAML of a student of the hub."""
    model = {block: {'pretrained_model_name_or_path': name} for block in ('tokenizer_kwargs', 'model_kwargs')}
    model['config_kwargs'] = {'pretrained_model_name_or_path': name, **kwargs}
    return config(models={'student_model': {'key': name, **model}})


def test_a_yaml_without_traits_is_for_image_classification():
    assert task_of(config(models={'student_model': {'key': 'resnet18', 'kwargs': {}}})) is CLASSIFICATION


def test_a_yaml_with_the_blocks_of_transformers_is_for_texts():
    assert task_of(named('bert-base-uncased')) is TEXT
    assert TEXT.traits(config(models={'student_model': {'tokenizer_kwargs': {}, 'config_kwargs': {'a': 1}}})) == [
        '`config_kwargs:` of its models'
    ]


def test_traits_of_two_tasks_are_named(monkeypatch):
    class Other(TextClassification):
        name = 'something else'

        def traits(self, config):
            return ['a strange key']

    monkeypatch.setattr('trg_torchdistill.cli.tasks.recognised.OTHERS', (TEXT, Other()))
    with pytest.raises(TRGError, match=r'`model_kwargs:` of its models, of text classification; a strange key, of'):
        task_of(named('bert-base-uncased'))


def test_every_task_says_what_it_is():
    for task in (CLASSIFICATION, *OTHERS):
        assert all([task.name, task.item, task.items, task.label, task.metric])
        assert task.trainer(config()).startswith('examples/')


@pytest.mark.parametrize('command', ['train', 'eval', 'plot'])
def test_commands_for_images_name_the_trainer_of_texts(command, tmp_path, capsys):
    (tmp_path / 'texts.yaml').write_text(texts_yaml(tmp_path, 'num_epochs: 1'))
    output = ['-o', str(tmp_path / 'pictures')] if command == 'plot' else []
    assert main([command, str(tmp_path / 'texts.yaml'), *output]) == 2
    told = capsys.readouterr().err
    assert f'all that `{command}` knows, got one for text classification: `config_kwargs:` of its models' in told
    assert 'accelerate launch examples/hf_transformers/general_language_understanding.py --config' in told
    assert told.rstrip().endswith('texts.yaml --task_name sst2')


def test_the_trainer_of_other_texts_is_told_by_how_they_are_tokenised():
    other = config(preprocess={'dataset_id_map': {'own/train': 'train'}})
    assert TEXT.command(other, 'a b.yaml') == (
        "accelerate launch examples/hf_transformers/text_classification.py --config 'a b.yaml'"
    )
    assert list(TEXT.as_trained(other).data['datasets']) == ['own/train']


@pytest.mark.parametrize(
    ('name', 'layers', 'width', 'ids'),
    [
        ('bert-base-uncased', 12, 768, [101, 102]),
        ('someone/bert-large-uncased-cola', 24, 1024, [101, 102]),
        ('google/bert_uncased_L-4_H-512_A-8', 4, 512, [101, 102]),
        ('distilbert-base-uncased', 6, 768, [101, 102]),
        ('roberta-large', 24, 1024, [0, 2]),
        ('FacebookAI/xlm-roberta-base', 12, 768, [0, 2]),
    ],
)
def test_the_name_of_a_model_tells_its_sizes(name, layers, width, ids):
    yaml = named(name, num_labels=5)
    found = model_config(yaml, PATH)
    assert (found.num_hidden_layers, found.hidden_size, found.num_labels) == (layers, width, 5)
    assert found.num_attention_heads * 64 == width
    assert special_ids(yaml, PATH, found) == ids
    assert model_config(yaml, PATH, 7).num_labels == 7


def test_a_name_that_tells_nothing_is_refused():
    with pytest.raises(TRGError, match="a model whose name tells its family, got 'someone/model', and nothing is down"):
        model_config(named('someone/model'), PATH)


def test_a_local_folder_gives_its_own_configuration_and_special_tokens(tmp_path):
    save(tmp_path / 'own', 16, 0)
    yaml = named(str(tmp_path / 'own'))
    found = model_config(yaml, PATH)
    assert (found.num_hidden_layers, found.hidden_size) == (2, 16)
    assert special_ids(yaml, PATH, found) == [2, 3]


def test_a_block_without_a_name():
    with pytest.raises(TRGError, match=r'`models\.student_model\.model_kwargs` to have `pretrained_model_name'):
        TEXT.check_models(config(models={'student_model': {**named('x').get(*PATH), 'model_kwargs': {}}}))


@pytest.mark.parametrize(
    ('kwargs', 'dtype', 'shape'),
    [
        ({'num_labels': 4}, torch.long, ()),
        ({'num_labels': 1}, torch.float32, ()),
        ({'num_labels': 4, 'problem_type': 'multi_label_classification'}, torch.float32, (4,)),
    ],
)
def test_labels_are_those_of_the_problem(kwargs, dtype, shape):
    texts = RandomTexts(3, 8, model_config(named('bert-base-uncased', **kwargs), PATH))
    assert (texts[0]['labels'].dtype, texts[0]['labels'].shape) == (dtype, shape)
    assert [int(texts[index]['attention_mask'].sum()) for index in range(3)] == [8, 4, 8]
    assert (texts[1]['input_ids'][4:] == 0).all()


def test_each_trainer_has_packages_of_its_own(tmp_path):
    """torchdistill's folders of examples all have a package `custom`."""
    for name in ('texts', 'images'):
        (tmp_path / 'examples' / name / 'own_custom').mkdir(parents=True)
        (tmp_path / 'examples' / name / 'own_custom' / '__init__.py').write_text(f'KIND = {name!r}\n')
        (tmp_path / 'examples' / name / 'trainer.py').write_text('')
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs' / 'a.yaml').write_text('dependencies: []\n')
    yaml = load_deferred(str(tmp_path / 'configs' / 'a.yaml'))
    before = list(sys.path)
    for name in ('texts', 'images', 'texts'):
        folder = trainer_folder(yaml, f'examples/{name}/trainer.py')
        assert folder == tmp_path / 'examples' / name
        with packages_of(folder):
            import own_custom
        assert name == own_custom.KIND
    assert sys.path == before
    assert trainer_folder(yaml, 'examples/nothing/trainer.py') is None
    del sys.modules['own_custom']
