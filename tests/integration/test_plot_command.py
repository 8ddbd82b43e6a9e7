"""`trg-torchdistill plot` on the YAMLs of the digits, with untrained models, and on runs."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from torchdistill.models.registry import get_model

from trg_torchdistill.cli.demo.command import SAMPLES
from trg_torchdistill.cli.main import main
from trg_torchdistill.cli.plot import command as plot
from trg_torchdistill.datasets import Digits

CHECKPOINTS = 'resource/ckpt/digits'
STUDENT = 'digits-resnet8_from_resnet20.pt'
QUICK = ('--samples', '40', '--neighbors', '3', '--dpi', '60')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A working folder with weights where the YAMLs look for them."""
    root = tmp_path_factory.mktemp('plot')
    models = {
        'teacher.pt': ('resnet20', 1),
        f'kd/{STUDENT}': ('resnet8', 2),
        f'trg/{STUDENT}': ('resnet8', 3),
        'ce/digits-resnet8.pt': ('resnet8', 4),
    }
    for name, (key, seed) in models.items():
        torch.manual_seed(seed)
        file = root / CHECKPOINTS / name
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save({'model': get_model(key, num_classes=10).state_dict()}, file)
    for name in ('kd', 'trg'):
        (root / name).mkdir()
        epoch = {'val_top1': 50.0, 'loss': 1.0, 'terms': {'kd': 1.0}, 'temperature': None, 'lr': 0.1}
        (root / name / 'metrics.jsonl').write_text(json.dumps(epoch) + '\n')
    return root


@pytest.fixture
def draw(folder, monkeypatch, tmp_path, capsys):
    """Runs the command in the working folder; returns exit code, files by name, and what was said."""
    monkeypatch.chdir(folder)

    def call(*words):
        paths = [str(SAMPLES / word) if word.endswith('.yaml') else word for word in words]
        out = tmp_path / f'out{len(list(tmp_path.iterdir()))}'
        code = main(['plot', *paths, '-o', str(out)])
        printed = capsys.readouterr()
        files = {Path(name).name: Path(name).read_bytes() for name in printed.out.split()}
        assert set(files) == {file.name for file in out.glob('*')}
        return code, files, printed.err

    return call


def test_all_pictures_of_a_yaml_and_the_same_each_time(draw):
    code, files, said = draw('trg.yaml', *QUICK)
    assert (code, said) == (0, '')
    assert {name.split('.')[0] for name in files} == {'token_graph', 'context_maps', 'tsne'}
    for name, content in files.items():
        assert content.startswith(b'\x89PNG' if name.endswith('.png') else b'<?xml'), name
        assert len(content) > 5_000
    torch.rand(3)
    again = draw('trg.yaml', *QUICK, '--only', 'tsne', 'token_graph')[1]
    assert again == {name: content for name, content in files.items() if 'context' not in name}


def test_the_drawn_neighbours_are_those_of_the_features(draw, monkeypatch):
    seen = {}

    def spy(graphs, edges, shares, captions, titles, pixels, chosen, grid):
        seen.update(graphs=graphs, shares=shares, captions=captions, titles=titles, chosen=chosen)
        return original(graphs, edges, shares, captions, titles, pixels, chosen, grid)

    original = plot.draw_graph
    monkeypatch.setattr(plot, 'draw_graph', spy)
    words = ('--student', f'{CHECKPOINTS}/kd/{STUDENT}', f'{CHECKPOINTS}/trg/{STUDENT}', '--labels', 'KD', 'TRG')
    positions = ['3', '50', '7', '120', '9', '11', '300', '42']
    options = ('--only', 'token_graph', '--image', '2', '--cell', '1', '6', '--neighbors', '5', '--format', 'png')
    assert draw('trg.yaml', *words, *options, '--images', *positions)[0] == 0
    assert list(seen['graphs']) == ['teacher', 'student before', 'KD', 'TRG']
    assert seen['chosen'] == (2, 1, 6)
    assert (seen['captions']['teacher'], seen['captions']['KD']) == ('teacher\n(resnet20)', 'KD\n(resnet8)')
    digits = Digits('test')
    assert seen['titles'] == [f'class {digits[int(position)][1]}' for position in positions]
    pixels = [
        torch.frombuffer(bytearray(digits[int(position)][0].tobytes()), dtype=torch.uint8) for position in positions
    ]
    images = (torch.stack(pixels).view(-1, 32, 32, 3).permute(0, 3, 1, 2) / 255 - 0.3) / 0.35
    edges = {}
    for label, key, name in (('teacher', 'resnet20', 'teacher.pt'), ('TRG', 'resnet8', f'trg/{STUDENT}')):
        model = get_model(key, num_classes=10).eval()
        model.load_state_dict(torch.load(f'{CHECKPOINTS}/{name}')['model'])
        features = []
        model.layer3.register_forward_hook(lambda _, __, output, kept=features: kept.append(output))
        with torch.no_grad():
            model(images)
        tokens = functional.normalize(features[0].flatten(2).transpose(1, 2), dim=2).flatten(0, 1)
        distances = torch.cdist(tokens, tokens, compute_mode='donot_use_mm_for_euclid_dist').unflatten(1, (8, 64))
        for image in range(8):
            distances.unflatten(0, (8, 64))[image, :, image] = torch.inf
        edges[label] = distances.flatten(1).topk(5, largest=False).indices
        expected = {divmod(int(end), 64) for end in edges[label][2 * 64 + 8 + 6]}
        assert set(seen['graphs'][label]) == expected
    shared = (edges['TRG'][:, :, None] == edges['teacher'][:, None]).any(2).float().mean()
    assert seen['shares']['TRG'] == pytest.approx(shared.item(), abs=2e-3)  # near-equal distances may swap
    assert seen['shares']['teacher'] == 1


@pytest.mark.parametrize('name', ['kd.yaml', 'student.yaml'])
def test_a_yaml_without_trg_gets_the_layer_before_pooling(name, draw):
    code, files, _ = draw(name, *QUICK, '--only', 'context_maps', 'token_graph', '--format', 'svg')
    assert (code, sorted(files)) == (0, ['context_maps.svg', 'token_graph.svg'])


def test_curves_of_runs(draw):
    code, files, _ = draw('kd', 'trg', '--labels', 'KD', 'KD + TRG', '--format', 'svg', 'png')
    assert (code, sorted(files)) == (0, ['curves.png', 'curves.svg'])


ONLY = ('--only', 'token_graph')


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('nowhere',), 'expected the folder of a run, or a YAML, got nowhere, which does not exist'),
        (('resource',), 'expected resource to be the folder of a run, with a metrics.jsonl, got none there'),
        (('kd', 'trg.yaml'), 'expected folders of runs, or one YAML, got both'),
        (('kd.yaml', 'trg.yaml'), 'expected one YAML, got 2 files; compare several students'),
        (('kd', '--student-layer', 'x'), 'expected `--student-layer` with a YAML, got folders of runs'),
        ((f'{CHECKPOINTS}/teacher.pt',), 'to be a YAML file in UTF-8, got '),
        (('trg.yaml', *ONLY, '--cell', '0', '8'), 'a column from 0 to 7 of the 8 x 8 tokens of `student_model.layer3`'),
        (('trg.yaml', *ONLY, '--image', '8'), 'expected `--image` to be one of the 8 images, from 0, got 8'),
        (('trg.yaml', *ONLY, '--images', '7'), 'expected at least two `--images`'),
        (('trg.yaml', *ONLY, '--term', 'tgr'), "one of ['trg', 'contextual'], got 'tgr'; did you mean `trg`"),
        (('trg.yaml', *ONLY, '--dataset', 'x'), 'expected `--dataset` to be one of the keys under `datasets:`'),
        (('trg.yaml', *ONLY, '--student', 'no.pt'), 'got no.pt, which does not exist; train first, or name the'),
        (('trg.yaml', *ONLY, '--student', f'{CHECKPOINTS}/teacher.pt'), "a name of its own, got 'teacher'; use"),
        (('trg.yaml', *ONLY, '--labels', 'a', 'b'), 'expected one name in `--labels` for the student of the YAML'),
        (('kd.yaml', *ONLY, '--student-layer', 'layer9'), 'expected `--student-layer` to be a module of `resnet8`'),
        (('kd.yaml', *ONLY, '--student-layer', 'fc'), 'more than one token an image, got 1; name a layer before'),
        (('longtailed_kd.yaml', *ONLY), 'to hold trained weights of `resnet8`, got resource/ckpt/digits/longtailed'),
    ],
)
def test_mistakes_are_explained_and_nothing_is_written(words, message, draw):
    code, files, said = draw(*words)
    assert (code, files) == (2, {})
    assert message in said
    assert said.count('\n') == 1


def test_weights_that_could_run_code_are_refused(draw, folder):
    torch.save({'model': torch.nn.Linear(1, 1)}, folder / 'unsafe.pt')
    code, _, said = draw('trg.yaml', *ONLY, '--student', 'unsafe.pt')
    assert code == 2
    assert 'reading that could run code' in said


@pytest.mark.parametrize(
    ('module', 'words', 'message'),
    [
        ('matplotlib.figure', ('kd',), "pip install 'trg_torchdistill[cli]'"),
        (
            'sklearn.manifold',
            ('trg.yaml',),
            "pip install 'trg_torchdistill[demo]', or leave the picture out with `--only`",
        ),
    ],
)
def test_a_missing_package_is_named(module, words, message, draw, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    code, files, said = draw(*words)
    assert (code, files) == (2, {})
    assert message in said
