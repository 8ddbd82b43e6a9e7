"""`add` and `check` on YAMLs of torchdistill's trainers of texts, whose models are in local folders."""

import json

import pytest
from tiny_bert import save, texts_yaml

from trg_torchdistill.cli.main import main
from trg_torchdistill.cli.recipe.deferred import load_deferred

pytestmark = pytest.mark.slow

TRAIN = """
num_epochs: 1
train_data_loader:
  dataset_id: 'texts/train'
  sampler: {class_or_func: !import_get {key: 'torch.utils.data.RandomSampler'}, kwargs: }
  kwargs: {batch_size: 16, drop_last: False}
  collate_fn: 'DataCollatorWithPadding'
  requires_supp: False
val_data_loader:
  dataset_id: 'texts/val'
  sampler: {class_or_func: !import_get {key: 'torch.utils.data.SequentialSampler'}, kwargs: }
  kwargs: {batch_size: 16}
  collate_fn: 'DataCollatorWithPadding'
  requires_supp: False
teacher:
  forward_proc: 'forward_batch_only_as_kwargs'
  requires_grad: False
  forward_hook: {input: [], output: ['classifier']}
student:
  forward_proc: 'forward_batch_only_as_kwargs'
  forward_hook: {input: [], output: ['classifier']}
optimizer: {key: 'AdamW', kwargs: {lr: 1.0e-3}}
criterion:
  key: 'WeightedSumLoss'
  kwargs:
    sub_terms:
      kd:
        criterion:
          key: 'KDLoss'
          kwargs: {student_module_path: 'classifier', student_module_io: 'output', teacher_module_path: 'classifier',
                   teacher_module_io: 'output', temperature: 2.0, alpha: 0.5}
        weight: 1.0
"""
LAYER = 'bert.encoder.layer.1'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp('texts')
    save(found / 'teacher', 24, 1)
    save(found / 'student', 16, 0)
    save(found / 'equal', 24, 0)
    (found / 'kd.yaml').write_text(texts_yaml(found, TRAIN))
    (found / 'equal.yaml').write_text(texts_yaml(found, TRAIN).replace(str(found / 'student'), str(found / 'equal')))
    return found


@pytest.fixture(scope='module')
def upgraded(folder):
    assert main(['add', str(folder / 'kd.yaml'), '-o', str(folder / 'trg.yaml'), '--contextual-weight', '1']) == 0
    return load_deferred(str(folder / 'trg.yaml'))


def test_add_writes_mask_projection_and_what_accelerate_lacks(upgraded):
    wrapper = upgraded.get('train', 'student', 'auxiliary_model_wrapper', 'kwargs')
    assert wrapper['token_mask'] == {'special_ids': [2, 3]}
    widths = [(one['in_features'], one['out_features'], one['tokens']) for one in wrapper['projectors'].values()]
    assert widths == [(16, 24, {'layout': 'bld'})]
    hooks = upgraded.get('train', 'student', 'forward_hook', 'output')
    assert hooks == ['student_model.classifier', f'student_model.{LAYER}', *hooks[2:3], 'token_mask']
    for term in ('trg', 'contextual'):
        kwargs = upgraded.get('train', 'criterion', 'kwargs', 'sub_terms', term, 'criterion', 'kwargs')
        assert kwargs['token_mask'] == {'path': 'token_mask', 'io': 'output', 'side': 'student'}
        assert kwargs['student_tokens'] == kwargs['teacher_tokens'] == {'layout': 'bld'}
        assert kwargs['teacher_module_path'] == LAYER
    names = [entry['name'] for entry in upgraded.get('dependencies')]
    assert names == ['trg_torchdistill', 'trg_torchdistill.accelerate']
    assert upgraded.get('train', 'student', 'forward_proc') == 'forward_batch_only_as_kwargs'


def test_equal_widths_need_the_wrapper_for_the_mask_alone(folder):
    assert main(['add', str(folder / 'equal.yaml'), '-o', str(folder / 'equal_trg.yaml')]) == 0
    written = load_deferred(str(folder / 'equal_trg.yaml'))
    wrapper = written.get('train', 'student', 'auxiliary_model_wrapper')
    assert wrapper == {'key': 'Student4TRG', 'kwargs': {'token_mask': {'special_ids': [2, 3]}}}
    assert main(['check', str(folder / 'equal_trg.yaml'), '--steps', '1']) == 0


def test_add_names_the_command_of_the_trainer(folder, capsys):
    assert main(['add', str(folder / 'kd.yaml'), '-o', str(folder / 'again.yaml')]) == 0
    told = capsys.readouterr().out
    assert 'texts up to 12 tokens' in ' '.join(told.split())
    assert '12 tokens of 24' in told
    assert 'no term reads the logits' not in told
    command = 'accelerate launch examples/hf_transformers/general_language_understanding.py'
    assert f'{command} --config {folder / "again.yaml"} --task_name sst2' in told


def test_check_passes_on_what_add_wrote(folder, upgraded, capsys):
    assert main(['check', str(folder / 'trg.yaml'), '--json', '--steps', '1']) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report['ok'], report['task'], report['batch_size'], report['image_size']) == (
        True,
        'text classification',
        16,
        None,
    )
    assert report['models']['teacher']['weights'] == f'weights of {folder / "teacher"}'
    [stage] = report['stages']
    assert {term['name'] for term in stage['terms']} == {'kd', 'trg.local', 'trg.global', 'contextual'}
    assert all(term['gradient_norm'] > 0 for term in stage['terms'])
    assert stage['unreached'] == []
    kinds = {warning['kind'] for warning in report['warnings']}
    assert not kinds & {'unread_key', 'files', 'no_logit_term', 'teacher_in_train_mode', 'untrained_projectors'}


@pytest.mark.parametrize(
    ('option', 'told'),
    [
        (['--data'], 'expected a YAML for image classification with `--data`, which looks at images and classes, got'),
        (['--input-size', '32'], '32 x 32: a text has no such size: leave `--input-size` out'),
    ],
)
def test_options_for_images_are_refused(option, told, folder, upgraded, capsys):
    assert main(['check', str(folder / 'trg.yaml'), *option]) == 1
    assert told in capsys.readouterr().err


def test_check_tells_a_wrong_path_of_the_mask(folder, upgraded, capsys):
    text = (folder / 'trg.yaml').read_text().replace("'token_mask']", "'token_masks']")
    (folder / 'wrong.yaml').write_text(text)
    assert main(['check', str(folder / 'wrong.yaml'), '--steps', '1']) == 1
    assert "got 'token_masks', where there is nothing; did you mean `token_mask`?" in capsys.readouterr().err
