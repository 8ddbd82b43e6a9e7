"""`trg-torchdistill add` on a YAML with tiny models; the host's own box trains what was written."""

import pytest
import torch
import yaml
from documents import blocks

from tests.integration.add_yaml import (  # noqa: F401
    CONFIG,
    HOOKED,
    STAGES,
    STUDENT_BLOCK,
    changes,
    lines_taken,
    run_add,
    tiny_models,
    train_all_epochs,
    upgrade,
)
from trg_torchdistill.cli.recipe.deferred import load_deferred
from trg_torchdistill.host import relation_losses
from trg_torchdistill.losses.recipes import RECIPES


def test_equal_widths_only_add_and_train(tmp_path, capsys):
    old, new = upgrade(tmp_path, CONFIG)
    added, replaced, removed = changes(old, new)
    assert (replaced, removed) == ([], [])
    assert set(added) == {
        'dependencies',
        'train.pre_epoch_process',
        'train.post_epoch_process',
        'train.teacher.forward_hook',
        'train.student.forward_hook',
        'train.criterion.kwargs.sub_terms.trg',
    }
    assert lines_taken(old, new) == []
    printed = capsys.readouterr().out
    assert 'hook layer4' in printed
    assert 'both 12 wide, no projection needed' in printed
    assert 'in our trainings a small CNN learned faster' in printed
    assert f'trg-torchdistill train {new}' in printed
    assert [line for line in printed.splitlines() if len(line) > 80 and str(tmp_path) not in line] == []
    box = train_all_epochs(new)
    assert set(relation_losses(box.criterion)) == {'trg'}


@pytest.mark.parametrize('recipe', RECIPES)
def test_a_recipe_names_edges_rows_targets_and_temperature(recipe, tmp_path):
    _, new = upgrade(tmp_path, CONFIG, '--recipe', recipe)
    options = load_deferred(str(new)).get('train', 'criterion', 'kwargs', 'sub_terms', 'trg', 'criterion', 'kwargs')
    assert RECIPES[recipe].trg.items() <= options.items()
    assert {'edges', 'row_distribution', 'global_targets', 'temperature'} == set(RECIPES[recipe].trg)


@pytest.mark.parametrize(
    'change', [('num_epochs: 2', 'num_epochs: 1'), ('num_epochs:', "pre_epoch_process: 'my_own'\n  num_epochs:")]
)
def test_no_temperature_moves_where_nothing_moves_it(change, tmp_path):
    assert change[0] in CONFIG
    _, new = upgrade(tmp_path, CONFIG.replace(*change))
    options = load_deferred(str(new)).get('train', 'criterion', 'kwargs', 'sub_terms', 'trg', 'criterion', 'kwargs')
    assert 'temperature' not in options
    assert options['edges'] == 'own'


@pytest.mark.parametrize(
    ('words', 'weight'),
    [
        ('--recipe default', None),
        ('--contextual-weight 0', None),
        ('--contextual-weight 0.5', 0.5),
        ('--recipe literal', 1.0),
        ('--recipe literal --contextual-weight 3', 3.0),
        ('--recipe literal --contextual-weight 0', None),
    ],
)
def test_a_contextual_term_is_written_where_it_has_a_weight(words, weight, tmp_path, capsys):
    _, new = upgrade(tmp_path, CONFIG, *words.split())
    terms = load_deferred(str(new)).get('train', 'criterion', 'kwargs', 'sub_terms')
    assert {name: term['weight'] for name, term in terms.items() if name not in ('kd', 'trg')} == (
        {} if weight is None else {'contextual': weight}
    )
    if weight is not None:
        box = train_all_epochs(new)
        assert set(relation_losses(box.criterion)) == {'trg', 'contextual'}
    upgrade(tmp_path, CONFIG, *words.split(), '--teacher-layer', 'pool', '--overwrite')
    assert set(load_deferred(str(new)).get('train', 'criterion', 'kwargs', 'sub_terms')) == {'kd', 'trg'}
    told = 'no contextual term is written: it relates the tokens of one image, and `pool` has one'
    assert (told in ' '.join(capsys.readouterr().out.split())) == (weight is not None)


def test_unequal_widths_get_a_projection_and_lose_the_outer_wrapper(tmp_path, capsys):
    old, new = upgrade(tmp_path, CONFIG, models=('cnn12', 'cnn8'))
    _, replaced, removed = changes(old, new)
    assert (replaced, removed) == (['train.student.wrapper'], [])
    assert lines_taken(old, new) == ["    wrapper: 'DistributedDataParallel'"]
    assert "`wrapper:` was 'DistributedDataParallel', now it is empty" in ' '.join(capsys.readouterr().out.split())
    projectors = load_deferred(str(new)).get('train', 'student', 'auxiliary_model_wrapper', 'kwargs', 'projectors')
    assert projectors == {
        'layer4': {'path': 'student_model.layer4', 'io': 'output', 'in_features': 8, 'out_features': 12}
    }
    train_all_epochs(new, moves='projectors.layer4')


def test_the_paths_of_other_terms_follow_the_student_into_the_wrapper(tmp_path, capsys):
    old, new = upgrade(tmp_path, HOOKED, models=('cnn12', 'cnn8'))
    _, replaced, removed = changes(old, new)
    assert removed == []
    assert set(replaced) == {
        'train.student.wrapper',
        'train.student.forward_hook.output.0',
        'train.student.forward_hook.output.1',
        'train.criterion.kwargs.sub_terms.at.criterion.kwargs.at_pairs.pair1.student.path',
    }
    assert '3 module paths of the student' in capsys.readouterr().out
    config = load_deferred(str(new))
    assert config.get('train', 'teacher', 'forward_hook', 'output') == ['layer3', 'layer4']
    assert config.get('train', 'student', 'forward_hook', 'output') == [
        'student_model.layer3',
        'student_model.layer4',
        'projectors.layer4',
    ]
    train_all_epochs(new)


@pytest.mark.parametrize(('side', 'path'), [('student', 'student_model.layer3'), ('teacher', 'layer3')])
def test_a_mask_of_a_side_follows_it(tmp_path, side, path):
    """The paths of a block that says its `side`, as `token_mask` does, are those of that side."""
    text = HOOKED.replace('student: {io:', f"mask: {{side: '{side}', io:")
    _, new = upgrade(tmp_path, text, models=('cnn12', 'cnn8'))
    pairs = load_deferred(str(new)).get(
        'train', 'criterion', 'kwargs', 'sub_terms', 'at', 'criterion', 'kwargs', 'at_pairs'
    )
    assert pairs['pair1']['mask']['path'] == path


def test_frozen_modules_and_module_wise_options_follow_too(tmp_path):
    text = CONFIG.replace(STUDENT_BLOCK, f"{STUDENT_BLOCK}\n    frozen_modules: ['layer3', 'instance(BatchNorm2d)']")
    text = text.replace(
        'kwargs: {lr: 0.05}',
        "kwargs: {lr: 0.05}\n    module_wise_configs:\n      - {module: 'layer4', kwargs: {lr: 0.1}}",
    )
    _, new = upgrade(tmp_path, text, models=('cnn12', 'cnn8'))
    config = load_deferred(str(new))
    assert config.get('train', 'student', 'frozen_modules') == ['student_model.layer3', 'instance(BatchNorm2d)']
    assert config.get('train', 'optimizer', 'module_wise_configs') == [
        {'module': 'student_model.layer4', 'kwargs': {'lr': 0.1}},
        {'module': 'projectors'},
    ]
    wrapper = config.get('train', 'student', 'auxiliary_model_wrapper', 'kwargs')
    assert wrapper['find_unused_parameters'] is True
    box = train_all_epochs(new)
    assert not any(parameter.requires_grad for parameter in box.student_model.student_model.layer3.parameters())


@pytest.mark.parametrize(
    ('models', 'student_tokens', 'teacher_tokens'),
    [
        (('vit', 'cnn8'), None, {'num_prefix_tokens': 1}),
        (('cnn12', 'vit'), {'num_prefix_tokens': 1}, None),
        (('swin', 'cnn8'), None, {'layout': 'bhwc'}),
        (('vit', 'swin'), {'layout': 'bhwc'}, {'num_prefix_tokens': 1}),
    ],
)
def test_transformers_get_their_token_options_and_train(tmp_path, models, student_tokens, teacher_tokens):
    _, new = upgrade(tmp_path, CONFIG, '--contextual-weight', '1', models=models)
    terms = load_deferred(str(new)).get('train', 'criterion', 'kwargs', 'sub_terms')
    for name in ('trg', 'contextual'):
        assert terms[name]['criterion']['kwargs'].get('student_tokens') == student_tokens
        assert terms[name]['criterion']['kwargs'].get('teacher_tokens') == teacher_tokens
    train_all_epochs(new)


def test_a_model_that_returns_an_object_gets_the_process_that_takes_its_logits(tmp_path, capsys):
    old, new = upgrade(tmp_path, CONFIG, models=('cnn8', 'hf'))
    assert changes(old, new)[1] == ['train.student.forward_proc']
    said = ' '.join(capsys.readouterr().out.split())
    assert "the student returns no tensor: its `forward_proc:` is now 'forward_logits_only'" in said


def test_the_data_set_is_not_built_nothing_random_moves_and_an_alias_keeps_its_meaning(tmp_path):
    text = CONFIG.replace('torchvision.datasets.FakeData', 'no.such.package.Data')
    text = text.replace('  teacher:\n', '  teacher: &teacher\n').replace('test:\n', 'test:\n  _copy: *teacher\n')
    state = torch.get_rng_state()
    old, new = upgrade(tmp_path, text)
    assert torch.equal(state, torch.get_rng_state())
    before, after = load_deferred(str(old)), load_deferred(str(new))
    assert after.get('test', '_copy') == before.get('test', '_copy') == before.get('train', 'teacher')
    assert after.get('train', 'teacher', 'forward_hook') == {'input': [], 'output': ['layer4']}


def test_options_choose_layers_and_weights(tmp_path):
    _, new = upgrade(
        tmp_path,
        CONFIG,
        '--student-layer',
        'layer3',
        '--teacher-layer=layer3.-1',
        '--weight',
        '0.5',
        '--input-size',
        24,
    )
    term = load_deferred(str(new)).get('train', 'criterion', 'kwargs', 'sub_terms', 'trg')
    assert (term['weight'], term['criterion']['kwargs']['teacher_module_path']) == (0.5, 'layer3.2')


def test_diff_prints_and_writes_nothing(tmp_path, capsys):
    (tmp_path / 'old.yaml').write_text(CONFIG.replace('TEACHER', 'cnn8').replace('STUDENT', 'cnn8'))
    assert run_add(tmp_path / 'old.yaml', '--diff') == 0
    assert "+  - name: 'trg_torchdistill'" in capsys.readouterr().out.splitlines()
    assert [path.name for path in tmp_path.iterdir()] == ['old.yaml']


def test_a_teacher_that_nobody_froze_is_frozen_and_that_is_said(tmp_path, capsys):
    _, new = upgrade(tmp_path, CONFIG.replace('    requires_grad: False\n', ''))
    assert load_deferred(str(new)).get('train', 'teacher', 'requires_grad') is False
    assert 'the teacher was not frozen' in capsys.readouterr().out
    train_all_epochs(new)


def test_of_several_stages_the_last_is_upgraded_unless_one_is_named(tmp_path):
    old, new = upgrade(tmp_path, STAGES, models=('cnn12', 'cnn8'))
    assert {path.split('.')[1] for path in changes(old, new)[0] if path.startswith('train.')} == {'stage2'}
    train_all_epochs(new)
    old, new = upgrade(tmp_path, STAGES, '--stage', 'stage1', '--overwrite')
    assert {path.split('.')[1] for path in changes(old, new)[0] if path.startswith('train.')} == {'stage1'}


@pytest.mark.parametrize(('words', 'warned'), [((), True), (('--input-size', '32'), False)])
def test_a_guessed_size_is_told_with_the_command_to_repeat(tmp_path, capsys, words, warned):
    text = CONFIG.replace("'torchvision.datasets.FakeData'", "'own.Images'").replace(
        'image_size: [3, 16, 16]', 'count: 3'
    )
    _, new = upgrade(tmp_path, text, *words)
    printed = ' '.join(capsys.readouterr().out.split())
    assert ('WARNING: the images are taken to be 224 x 224, a guess' in printed) == warned
    assert (f'{new} --overwrite --input-size N' in printed) == warned
    assert (f'check {new} --input-size 32x32' in printed) != warned
    assert run_add(tmp_path / 'old.yaml', '--diff', *words) == 0
    assert ('WARNING: the images are taken to be 224 x 224, a guess' in capsys.readouterr().err) == warned


def test_the_old_checkpoint_is_told(tmp_path, capsys):
    upgrade(tmp_path, CONFIG)
    assert '- `dst_ckpt:` is the old one' in capsys.readouterr().out


@pytest.mark.parametrize('page', ['docs/start.md', 'docs/text.md'])
def test_a_page_shows_the_keywords_that_are_written(page, tmp_path):
    shown = next(yaml.safe_load(text) for text in blocks(page, 'yaml') if 'Student4TRG' in text)
    _, new = upgrade(tmp_path, CONFIG, models=('cnn12', 'cnn8'))
    here, there = (
        train['criterion']['kwargs']['sub_terms']['trg']['criterion']['kwargs']
        for train in (shown['train'], load_deferred(str(new)).get('train'))
    )
    layouts = {'student_tokens', 'teacher_tokens', 'token_mask'}
    assert [name for name in here if name not in layouts] == list(there)
