"""`check --data` takes its steps on images of the data sets, and tells what weight to begin with."""

import re

import pytest
import torch
import yaml
from tiny import CE, KD, QUICK, TRG, TRG_SIDES, Blobs, check, stage, stages, terms, tiny_net, whole_yaml, write
from torch.nn import functional
from torchdistill.losses.registry import FUNC2EXTRACT_MODEL_OUTPUT_DICT

from trg_torchdistill.cli.check import start
from trg_torchdistill.cli.check.report import _plain
from trg_torchdistill.cli.check.start import START_RATIO, START_RATIO_OF_LONG_TAILS
from trg_torchdistill.cli.main import main

FULL = stage(3, CE + KD + TRG, sides=TRG_SIDES)


@pytest.fixture
def look(tmp_path, capsys):
    """Runs `check` on a YAML with a trained teacher."""
    torch.save(tiny_net(6).state_dict(), tmp_path / 'teacher.pt')

    def run(*words, weight=0.5, train=FULL, change=('src_ckpt: }', "src_ckpt: 'TEACHER'}")):
        change = (change[0], change[1].replace('TEACHER', str(tmp_path / 'teacher.pt')))
        code, report = check(tmp_path, capsys, train.replace('weight: 0.5', f'weight: {weight}'), *words, change=change)
        assert code == 0
        return report

    return run


def test_the_weights_that_it_tells_are_those_that_pull_so_hard(look):
    pulls = {pull['term']: pull for pull in look('--data')['stages'][0]['pulls']}
    assert list(pulls) == ['trg']
    weights = pulls['trg']['weights']
    assert list(weights) == ['local_weight', 'global_weight']
    told = ', '.join(f'{keyword}: {weight}' for keyword, weight in weights.items())
    written = FULL.replace('num_neighbors: 3', f'num_neighbors: 3, {told}')
    report = look('--data', train=written)
    again = report['stages'][0]['pulls'][0]
    assert again['ratio'] == pytest.approx(START_RATIO, rel=1e-4)
    assert again['weights'] == pytest.approx(weights, rel=1e-4)
    norms = {name: term['gradient_norm'] for name, term in terms(report).items()}
    for part in ('trg.local', 'trg.global'):
        assert norms[part] / (norms['ce'] + norms['kd']) == pytest.approx(START_RATIO / 2, rel=1e-4)


def test_of_one_term_it_tells_the_weight(look):
    one = FULL.replace('num_neighbors: 3', 'num_neighbors: 3, global_weight: 0')
    weights = look('--data', train=one)['stages'][0]['pulls'][0]['weights']
    assert list(weights) == ['weight']
    report = look('--data', train=one, weight=weights['weight'])
    assert report['stages'][0]['pulls'][0]['ratio'] == pytest.approx(START_RATIO, rel=1e-4)


def test_two_losses_share_what_it_tells(look):
    second = TRG[: TRG.index('context:')].replace('trg:', 'again:')
    pulls = look('--data', train=stage(3, CE + KD + TRG + second, sides=TRG_SIDES))['stages'][0]['pulls']
    assert {pull['term']: pull['wanted'] for pull in pulls} == {'trg': START_RATIO / 2, 'again': START_RATIO / 2}
    alone = look('--data')['stages'][0]['pulls'][0]['weights']
    assert pulls[0]['weights'] == pytest.approx({keyword: weight / 2 for keyword, weight in alone.items()}, rel=1e-4)


@pytest.mark.parametrize(
    ('counts', 'wanted'),
    [
        ([4, 4, 4, 4, 4, 4], START_RATIO),
        ([8, 0, 4, 4, 4, 4], START_RATIO),
        ([9, 5, 4, 2, 2, 2], START_RATIO_OF_LONG_TAILS),
    ],
)
def test_on_a_long_tail_it_tells_lighter_weights(counts, wanted, look, monkeypatch):
    balanced = look('--data')['stages'][0]['pulls'][0]
    monkeypatch.setattr(Blobs, 'class_counts', counts, raising=False)
    pull = look('--data')['stages'][0]['pulls'][0]
    lighter = {keyword: weight * wanted / START_RATIO for keyword, weight in balanced['weights'].items()}
    assert pull['wanted'] == wanted
    assert pull['weights'] == pytest.approx(lighter, rel=1e-4)


def test_the_steps_are_on_the_data(look):
    values = {
        name: [term['value'] for term in terms(look(*words)).values()]
        for name, words in (('random', ()), ('data', ['--data']))
    }
    assert values['random'] != values['data']
    report = look('--data')
    assert (report['steps_on'], look()['steps_on']) == ('data', 'random')
    assert [term['value'] for term in terms(report).values()] == values['data']


def test_few_images_are_drawn_again(look):
    report = look('--data', '--steps', '9', change=('size: 24', 'size: 9'))
    assert report['steps_on'] == 'data'
    assert report['stages'][0]['step']['steps'] == 9


MODELS = "src_ckpt: }\n  student_model:\n    key: 'tiny_net'\n    kwargs: {width: 4}\n    src_ckpt:"
TRAINED = (MODELS, MODELS.replace('src_ckpt:', "src_ckpt: 'TEACHER'").replace('width: 4', 'width: 6'))
RISING = "num_neighbors: 3, local_weight: {start: 0.0, end: 1.0, schedule: 'linear'}"
OTHER_SAMPLER = "!import_get {key: 'trg_torchdistill.datasets.class_balanced_sampler'}"


@pytest.mark.parametrize(
    ('why', 'options'),
    [
        ('the teacher has random weights here', {'change': ('size: 24', 'size: 25')}),
        (
            'the student is not a new one',
            {'change': TRAINED, 'train': FULL.replace('in_features: 4', 'in_features: 6')},
        ),
        ('no other term pulls at the student', {'train': stage(3, TRG, sides=TRG_SIDES)}),
        ('`local_weight:` of `trg` is a schedule', {'train': FULL.replace('num_neighbors: 3', RISING)}),
        (
            "the loader's own sampler is not used here",
            {'train': FULL.replace("!import_get {key: 'torch.utils.data.RandomSampler'}", OTHER_SAMPLER)},
        ),
    ],
)
def test_what_is_no_start_of_a_training_tells_no_weight_but_why(why, options, look):
    (found,) = look('--data', **options)['stages']
    assert (found['pulls'], found['untold']) == ([], why)


def test_of_a_data_set_without_labels_it_tells_none(look, monkeypatch):
    monkeypatch.setattr(start, 'class_counts', lambda dataset: None)
    (found,) = look('--data')['stages']
    assert (found['pulls'], found['untold']) == ([], 'the data set does not tell the labels of its images')


@pytest.mark.parametrize(('words', 'train'), [([], FULL), (['--data'], stage(1, CE + KD, sides=TRG_SIDES))])
def test_where_nobody_asks_it_gives_no_reason(words, train, look):
    (found,) = look(*words, train=train)['stages']
    assert (found['pulls'], found['untold']) == ([], '')


def test_only_the_first_stage_begins_with_a_new_student(look):
    first, second = look('--data', train=stages(FULL, FULL))['stages']
    assert first['pulls']
    assert (second['pulls'], second['untold']) == ([], 'only the first stage begins with a new student')


@pytest.mark.parametrize(('value', 'shown'), [(100.4, '100'), (2e-5, '0.00002'), (0.57, '0.57'), (1234, '1200')])
def test_a_weight_is_shown_as_yaml_reads_it(value, shown):
    assert _plain(value) == shown
    assert isinstance(yaml.safe_load(shown), (int, float))


def test_what_the_models_return_as_a_loss_is_another_term(look, monkeypatch):
    def extract(outputs, targets, supp_dict):
        return {'own': 3 * functional.cross_entropy(outputs, targets)}

    plain = look('--data')['stages'][0]
    monkeypatch.setitem(FUNC2EXTRACT_MODEL_OUTPUT_DICT, 'own_loss', extract)
    before, after = '  kwargs:\n    sub_terms:', '  kwargs:\n    model_term: {weight: 1.0}\n    sub_terms:'
    with_model = FULL.replace(before, f"  func2extract_model_loss: 'own_loss'\n{after}")
    found = look('--data', train=with_model)['stages'][0]
    term = found['terms'][-1]
    assert term['name'] == 'model_term'
    assert sum(each['weighted'] for each in found['terms']) == pytest.approx(found['loss'], rel=1e-5)
    assert found['pulls'][0]['ratio'] < plain['pulls'][0]['ratio']


def test_the_terminal(tmp_path, capsys):
    torch.save(tiny_net(6).state_dict(), tmp_path / 'teacher.pt')
    text = whole_yaml(tmp_path, FULL).replace('src_ckpt: }', f"src_ckpt: '{tmp_path / 'teacher.pt'}'}}")
    path = write(tmp_path, text)
    assert main(['check', path, *QUICK, '--data']) == 0
    shown = ' '.join(capsys.readouterr().out.split())
    assert 'images 8 x 8, of the data (--input-size)' in shown
    told = r'`local_weight: \S+` and `global_weight: \S+` under its `kwargs:` would make it 1.2'
    assert 'trg: its gradient is ' in shown
    assert re.search(told, shown), shown
    assert '`--batch-size' not in shown
    assert main(['check', path, *QUICK, '--data', '--batch-size', '4']) == 0
    assert '`--batch-size 8` tells that of batches as they are trained' in ' '.join(capsys.readouterr().out.split())


@pytest.mark.parametrize('command', ['check', 'train'])
def test_a_wrapper_may_take_a_transform_out_of_its_data_set(command, tmp_path, monkeypatch):
    """As torchdistill's for SSKD does, each time that a loader is built; a look at the data builds one, too."""
    monkeypatch.chdir(tmp_path)
    text = whole_yaml(tmp_path, stage(1, TRG, sides=TRG_SIDES.replace('forward_batch_only', 'forward_batch4sskd')))
    to_tensor = "!import_call {key: 'torchvision.transforms.ToTensor', init: }"
    images = f'size: 24, image_size: [3, 8, 8], num_classes: 6, transform: {to_tensor}'
    for found, instead in (
        (
            "'tiny.Blobs', init: {kwargs: {size: 24}}",
            f"'torchvision.datasets.FakeData', init: {{kwargs: {{{images}}}}}",
        ),
        ("dataset_id: 'train'", "dataset_id: 'train'\n    dataset_wrapper: {key: 'SSKDDatasetWrapper', kwargs: {}}"),
    ):
        assert found in text
        text = text.replace(found, instead, 1)
    assert main([command, write(tmp_path, text), *(['--data'] if command == 'check' else [])]) == 0
