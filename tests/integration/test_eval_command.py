"""`trg-torchdistill eval` from the command line's words to its JSON, on tiny models."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, top_k_accuracy_score
from tiny import CE, KD, NUM_CLASSES, stage, train, whole_yaml, write

from trg_torchdistill.cli.main import main

LONG_TAILED = 'size: 24, counts: [2, 4, 6, 8, 10, 12]'
MODEL_ALONE = "model: {forward_proc: 'forward_batch_only'}\n"


def write_yaml(folder, replaced=(), **options):
    """A YAML whose models have weights, in `folder/teacher.pt` and `folder/student.pt`."""
    for width, name in ((4, 'student'), (6, 'teacher')):
        torch.save(tiny.tiny_net(width).state_dict(), folder / f'{name}.pt')
    text = whole_yaml(
        folder, stage(1, CE if options.get('teacher') is False else CE + KD, **options.pop('stage', {})), **options
    )
    for old, new in [('src_ckpt: }', f'src_ckpt: {folder}/teacher.pt}}'), *replaced]:
        text = text.replace(old, new)
    return write(folder, text)


def evaluate(config, *words):
    """Runs the command and returns what it writes."""
    file = Path(config).with_name('eval.json')
    assert main(['eval', config, *words, '--json', str(file), '--device', 'cpu']) == 0
    return json.loads(file.read_text())


def refused(*words):
    return main(['eval', *words, '--device', 'cpu'])


def logits_of(width, weights):
    """Logits [48, 6] of the validation images, one at a time, and their labels."""
    model = tiny.tiny_net(width).eval()
    model.load_state_dict(weights)
    images = tiny.Blobs(48, noise=0)
    with torch.inference_mode():
        return np.stack([model(image[None])[0].numpy() for image, _ in images]), np.array(images.targets)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def test_a_model_beside_itself_is_told(tmp_path, capsys):
    config = write_yaml(tmp_path, [('    kwargs: {width: 4}', '    kwargs: {width: 6}')])
    evaluate(config, str(tmp_path / 'teacher.pt'))
    assert 'teacher.pt holds the weights of both: a model is compared with itself' in capsys.readouterr().out


def test_the_same_numbers_as_train(tmp_path, capsys):
    teacher_in_eval_mode = {'more': "pre_epoch_process: 'pre_epoch_process_with_trg'\n"}
    config = write_yaml(tmp_path, train_kwargs=LONG_TAILED, stage=teacher_in_eval_mode)
    assert train(config, '--seed', '1') == 0
    trained = capsys.readouterr().out.splitlines()
    assert any('classes by training images: many ' in line for line in trained)
    found, tested = evaluate(config), json.loads((tmp_path / 'student' / 'test.json').read_text())
    assert found['weights'] == tested['weights'] == str(tmp_path / 'student.pt')
    for side in ('test', 'teacher'):
        assert {key: found[side][key] for key in tested[side]} == tested[side]
    assert set(found['test']) == {*tested['test'], 'groups_by_shots'}
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if ' top-1 ' in line] == [line for line in trained if ' top-1 ' in line][::-1]
    assert train(config, '-test_only', '--amp', 'bf16') == 0
    tested = json.loads((tmp_path / 'student' / 'test.json').read_text())
    assert evaluate(config, '--amp', 'bf16')['test']['per_class'] == tested['test']['per_class']


def test_numbers_equal_those_of_scikit_learn(tmp_path):
    found = evaluate(write_yaml(tmp_path))
    student, labels = logits_of(4, torch.load(tmp_path / 'student.pt'))
    teacher, _ = logits_of(6, torch.load(tmp_path / 'teacher.pt'))
    best = student.argmax(1)
    assert found['test']['n'] == 48
    assert found['test']['top1'] == pytest.approx(100 * accuracy_score(labels, best))
    assert found['test']['top5'] == pytest.approx(100 * top_k_accuracy_score(labels, student, k=5))
    matrix = confusion_matrix(labels, best, labels=range(NUM_CLASSES))
    assert found['test']['per_class'] == pytest.approx(100 * matrix.diagonal() / matrix.sum(1))
    assert found['classes'] == [{'name': str(label), 'test_images': 8, 'train_images': 4} for label in range(6)]
    again = np.diag(matrix.diagonal())
    for pair in found['confusions']:
        again[pair['true'], pair['predicted']] = pair['count']
    assert (again == matrix).all()
    same, right, teacher_right = best == teacher.argmax(1), best == labels, teacher.argmax(1) == labels
    p, q = log_softmax(teacher.astype(float)), log_softmax(student.astype(float))
    assert found['agreement'] == {
        'top1': pytest.approx(100 * same.mean()),
        'n': 48,
        'both_right': (right & teacher_right).sum(),
        'both_wrong_same': (~right & same).sum(),
        'only_teacher_right': (~right & teacher_right).sum(),
        'only_student_right': (right & ~teacher_right).sum(),
        'both_wrong_differently': (~right & ~teacher_right & ~same).sum(),
        'per_class': pytest.approx([100 * same[labels == label].mean() for label in range(NUM_CLASSES)]),
        'divergence': pytest.approx((np.exp(p) * (p - q)).sum(1).mean(), rel=1e-4),
    }


def test_every_kind_of_checkpoint(tmp_path):
    config = write_yaml(tmp_path)
    assert train(config) == 0
    best, last = tmp_path / 'student.pt', tmp_path / 'student' / 'last.pt'
    of_last = torch.load(last, weights_only=True)['modules']['student']
    files = {'bare': of_last, 'example': {'model': of_last, 'optimizer': {}, 'args': Namespace(config=config)}}
    for name, content in files.items():
        torch.save(content, tmp_path / f'{name}.pt')
    assert evaluate(config, str(best))['test'] == evaluate(config)['test']
    best.unlink()
    expected, labels = logits_of(4, of_last)
    for path in (last, tmp_path / 'bare.pt', tmp_path / 'example.pt'):
        found = evaluate(config, str(path))
        assert found['weights'] == str(path)
        assert found['test']['top1'] == pytest.approx(100 * (expected.argmax(1) == labels).mean())


def test_without_a_teacher_and_without_a_training_block(tmp_path, capsys):
    config = write_yaml(tmp_path, teacher=False, stage={'sides': MODEL_ALONE})
    found = evaluate(config)
    assert {'teacher', 'agreement'} & set(found) == set()
    text = Path(config).read_text()
    Path(config).write_text(text[: text.index('train:\n  log')] + text[text.index('test:\n') :])
    shorter = evaluate(config)
    assert shorter['test'] == found['test']
    assert [each['train_images'] for each in shorter['classes']] == [None] * 6
    assert 'agree' not in capsys.readouterr().out


@pytest.mark.parametrize(
    ('words', 'replaced', 'line', 'asked'),
    [
        (['-student_only'], (), '', False),
        ([], [('teacher.pt}', 'gone.pt}')], 'no teacher: `models.teacher_model.src_ckpt` (line 9) is ', False),
        ([], [('src_ckpt: ', 'x: ')], 'WARNING: `models.teacher_model` (line 9) names no weights', True),
    ],
)
def test_whether_the_teacher_is_asked(words, replaced, line, asked, tmp_path, capsys):
    found = evaluate(write_yaml(tmp_path, replaced), *words)
    assert ('agreement' in found) == asked
    assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    ('counts', 'words', 'titles'),
    [
        ([2, 4, 6, 8, 10, 12], [], ['thirds of classes']),
        ([2, 4, 60, 80, 101, 200], [], ['thirds of classes', '>100, 20-100, <20 images']),
        ([2, 4, 60, 80, 101, 200], ['--groups', 'thirds'], ['thirds of classes']),
        ([2, 4, 6, 8, 10, 12], ['--groups', 'shots'], ['>100, 20-100, <20 images']),
        ([4, 4, 4, 4, 4, 4], [], []),
    ],
)
def test_groups_of_a_long_tailed_training_set(counts, words, titles, tmp_path, capsys):
    found = evaluate(write_yaml(tmp_path, train_kwargs=f'size: 24, counts: {counts}'), *words)['test']
    shown = capsys.readouterr().out.splitlines()
    assert [line[:24].strip() for line in shown if 'train images' in line] == titles
    if titles:
        few = [value for value, count in zip(found['per_class'], counts, strict=True) if count < 20]
        assert found['groups_by_shots']['few'] == pytest.approx(sum(few) / len(few))
        assert found['groups']['many'] == pytest.approx(sum(found['per_class'][4:]) / 2)
    else:
        assert 'groups' not in found


def test_a_long_table_shows_the_worst_and_the_best(tmp_path, capsys):
    found = evaluate(write_yaml(tmp_path), '--rows', '2')
    lines = capsys.readouterr().out.splitlines()
    start = lines.index('class   test  train  student %  teacher %    agree %') + 1
    shown = [float(line.split()[3]) for line in (*lines[start : start + 2], *lines[start + 3 : start + 5])]
    ordered = sorted(found['test']['per_class'])
    assert shown == pytest.approx(ordered[:2] + ordered[-2:], abs=0.01)
    assert lines[start + 2] == '... the 2 worst above, the 2 best below, of 6 classes (--rows, --json)'
    assert len(found['classes']) == 6
    assert sum(line.startswith('  ') and ' -> ' in line and ' of 8' in line for line in lines) == 2
    assert max(map(len, lines[start:])) <= 80


FILES = {  # what stands in the file after CONFIG, and what is said about it
    'another model': (
        lambda path: torch.save(tiny.tiny_net(5).state_dict(), path),
        '`layer1.0.weight` is [5, 3, 3, 3], not [4, 3, 3, 3], ',
    ),
    'no weights': (lambda path: torch.save({'epoch': 3}, path), 'it holds no weights, but 1 key: `epoch`'),
    'no weights in modules': (
        lambda path: torch.save({'modules': {'student': 3}}, path),
        'it holds no weights, but 1 key: `modules`',
    ),
    'a list': (lambda path: torch.save([1], path), 'it holds a list'),
    'text': (lambda path: path.write_text('hello'), 'Error on reading it'),
    'a module': (lambda path: torch.save(tiny.tiny_net(), path), 'it holds `tiny.TinyNet`, not only tensors'),
    'a folder': (lambda path: path.mkdir(), 'a folder; name a file in it, such as last.pt'),
    'nothing': (lambda path: None, 'which does not exist'),
}


@pytest.mark.parametrize('name', FILES)
def test_a_file_that_does_not_hold_the_weights(name, tmp_path, capsys):
    write_content, part = FILES[name]
    path = tmp_path / 'weights.pt'
    write_content(path)
    assert refused(write_yaml(tmp_path), str(path)) == 2
    error = capsys.readouterr().err
    start = f'error: expected CKPT to hold weights of `tiny_net`, `models.student_model` (line 10), got {path}'
    assert error.startswith(start)
    assert part in error
    assert len(error.splitlines()) == 1


TEST_BLOCK = "test:\n  test_data_loader:\n    dataset_id: 'val'"
YAMLS = {
    'no test block': (
        (TEST_BLOCK, "x:\n  test_data_loader:\n    dataset_id: 'val'"),
        'expected `test` to be a mapping, got nothing',
    ),
    'no test loader': (
        (TEST_BLOCK, "test:\n  x:\n    dataset_id: 'val'"),
        'expected `test.test_data_loader` to be a map',
    ),
    'no such data set': ((TEST_BLOCK, TEST_BLOCK[:-5] + "'tset'"), "['train', 'val'], got 'tset'"),
    'no weights yet': (('student.pt', 'none.pt'), 'to hold the weights to test, got '),
    'no place for weights': (('dst_ckpt', 'x'), 'expected a file of weights as CKPT, or as `dst_ckpt:` of `models.'),
    'no images': (('size: 48', 'size: 0'), 'to hold images for `test.test_data_loader`'),
}


@pytest.mark.parametrize('name', YAMLS)
def test_a_yaml_that_cannot_be_tested(name, tmp_path, capsys):
    (old, new), part = YAMLS[name]
    assert refused(write_yaml(tmp_path, [(old, new)])) == 2
    assert part in capsys.readouterr().err


def test_words_that_do_not_fit_the_yaml(tmp_path, capsys):
    assert refused(str(tmp_path)) == 2
    assert f'expected CONFIG to be a YAML file, got the folder {tmp_path}; name the YAML' in capsys.readouterr().err
    assert refused(write_yaml(tmp_path), '--groups', 'thirds') == 2
    assert 'for `--groups thirds`, got 4 of each class; leave `--groups` out' in capsys.readouterr().err
