"""`check --data` takes its steps on images of the data sets, and tells what weight to begin with."""

import re

import pytest
import torch
from tiny import CE, KD, QUICK, TRG, TRG_SIDES, Blobs, check, stage, terms, tiny_net, whole_yaml, write

from trg_torchdistill.cli.check.steps import START_RATIO, START_RATIO_OF_LONG_TAILS
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


@pytest.mark.parametrize('why', ['random images', 'random teacher', 'trained student', 'TRG alone'])
def test_what_is_no_start_of_a_training_tells_no_weight(why, look):
    student = "src_ckpt: }\n  student_model:\n    key: 'tiny_net'\n    kwargs: {width: 4}\n    src_ckpt:"
    both = student.replace('src_ckpt:', "src_ckpt: 'TEACHER'", 1).replace(
        '{width: 4}\n    src_ckpt:', "{width: 6}\n    src_ckpt: 'TEACHER'"
    )
    changes = {'random teacher': ('size: 24', 'size: 25'), 'trained student': (student, both)}
    words = [] if why == 'random images' else ['--data']
    options = {'change': changes[why]} if why in changes else {}
    if why == 'trained student':
        options['train'] = FULL.replace('in_features: 4', 'in_features: 6')
    if why == 'TRG alone':
        options['train'] = stage(3, TRG, sides=TRG_SIDES)
    assert not look(*words, **options)['stages'][0]['pulls']


def test_the_terminal(tmp_path, capsys):
    torch.save(tiny_net(6).state_dict(), tmp_path / 'teacher.pt')
    text = whole_yaml(tmp_path, FULL).replace('src_ckpt: }', f"src_ckpt: '{tmp_path / 'teacher.pt'}'}}")
    path = write(tmp_path, text)
    assert main(['check', path, *QUICK, '--data']) == 0
    shown = ' '.join(capsys.readouterr().out.split())
    assert 'images 8 x 8, of the data (--input-size)' in shown
    told = (
        r'gradient is \S+ times that of the other terms; `local_weight: \S+` and `global_weight: \S+` would make it 1.2'
    )
    assert re.search(told, shown), shown


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
