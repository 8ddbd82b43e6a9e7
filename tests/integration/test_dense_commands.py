"""`add`, `check` and `train` on YAMLs of torchdistill's COCO trainers: those of benchmarks/tasks, and others."""

import json
from pathlib import Path

import pytest

from trg_torchdistill.cli.main import main
from trg_torchdistill.cli.probe.build import offline
from trg_torchdistill.cli.recipe.deferred import load_deferred, parse_deferred
from trg_torchdistill.cli.tasks.recognised import task_of
from trg_torchdistill.errors import TRGError

TASKS = Path(__file__).parents[2] / 'benchmarks' / 'tasks'
SEGMENTATION, DETECTION = 'segmentation_kd', 'detection'


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes one of the YAMLs, changed, as a file that needs no checkout of torchdistill."""
    monkeypatch.syspath_prepend(str(TASKS))

    def written(name, *changes):
        text = (TASKS / 'configs' / f'{name}.yaml').read_text()
        for before, after in changes:
            assert before in text
            text = text.replace(before, after)
        for part in ('coco.dataset', 'custom.transform', 'custom'):
            text = text.replace(f"'{part}", "'coco_parts")
        path = tmp_path / f'{name}.yaml'
        path.write_text(text)
        return str(path)

    return written


def upgraded(config, capsys, *words):
    """What `add` writes for a YAML: its file, its values and the text on the terminal."""
    new = config.replace('.yaml', '-trg.yaml')
    assert main(['add', config, '-o', new, '--overwrite', *words]) == 0
    return new, parse_deferred(Path(new).read_text()), capsys.readouterr().out


def term(values, name='trg'):
    return values['train']['criterion']['kwargs']['sub_terms'][name]['criterion']['kwargs']


def checked(config, capsys, *words):
    code = main(['check', config, '--json', '--steps', '1', '--batch-size', '2', *words])
    return code, json.loads(capsys.readouterr().out)


def test_segmentation_is_upgraded_with_the_mask_of_its_labels_and_checked(write, capsys):
    new, values, text = upgraded(write(SEGMENTATION), capsys, '--contextual-weight', '1')
    assert 'images 48 x 48 (`CustomRandomCrop` of the training data)' in text
    assert 'python examples/torchvision/semantic_segmentation.py --config' in text
    assert '--num_classes 5' in text
    trg = term(values)
    assert (trg['student_module_path'], trg['teacher_module_path']) == ('backbone', 'backbone')
    assert trg['token_mask'] == term(values, 'contextual')['token_mask'] == {'ignore_index': 255}
    code, report = checked(new, capsys)
    assert (code, report['error'], report['task']) == (0, None, 'semantic segmentation')
    assert report['stages'][0]['graphs'][0]['cells'] == 144


@pytest.mark.slow
def test_a_backbone_of_several_maps_gets_a_key_and_a_projection(write, capsys):
    text = (TASKS / 'configs' / f'{SEGMENTATION}.yaml').read_text()
    kd = text[text.index('        kd:') : text.index('test:')]  # its logits would have other sizes
    small, large = "'fcn_cifar_resnet'\n    kwargs: {backbone: 'resnet8',", "'lraspp_mobilenet_v3_large'\n    kwargs: {"
    new, values, text = upgraded(write(SEGMENTATION, (small, large), (kd, '')), capsys)
    assert '12x12 tokens of 64\n' in text
    assert "3x3 tokens of 960, key 'high'" in text
    assert term(values)['student_tokens'] == {'key': 'high'}
    wrapper = values['train']['student']['auxiliary_model_wrapper']['kwargs']
    projector = {'path': 'student_model.backbone', 'io': 'output', 'in_features': 960, 'out_features': 64}
    assert wrapper['projectors'] == {'backbone': {**projector, 'tokens': {'key': 'high'}}}
    code, report = checked(new, capsys)
    assert (code, report['error']) == (0, None)


@pytest.mark.slow
def test_detection_is_upgraded_with_the_mask_of_its_transform_and_checked(write, capsys):
    new, values, text = upgraded(write(DETECTION), capsys)
    assert 'no term reads the logits' not in text  # the models' own losses are there
    trg = term(values)
    assert trg['student_tokens'] == trg['teacher_tokens'] == {'key': '1'}  # not `pool`
    assert trg['token_mask'] == {'path': 'transform', 'io': 'output', 'side': 'teacher'}
    assert values['train']['teacher']['forward_hook']['output'] == ['backbone', 'transform']
    assert values['train']['student']['forward_hook']['output'] == ['backbone']
    code, report = checked(new, capsys)
    assert (code, report['error'], report['task']) == (0, None, 'object detection')


@pytest.mark.parametrize(('name', 'script'), [(SEGMENTATION, 'semantic_segmentation'), (DETECTION, 'object_detection')])
def test_train_names_the_example_trainer(write, capsys, name, script):
    config = write(name)
    assert main(['train', config]) == 2
    message = capsys.readouterr().err
    assert script.replace('_', ' ') in message
    assert f'python examples/torchvision/{script}.py --config {config}' in message


@pytest.mark.parametrize(
    ('change', 'task'),
    [
        (("'fcn_cifar_resnet'", "'resnet18'"), 'semantic segmentation'),
        (('is_segment: True', 'is_segment: False'), None),
        (("'coco.dataset.coco_dataset'", "'torchvision.datasets.VOCSegmentation'"), 'semantic segmentation'),
    ],
)
def test_the_task_is_told_by_models_data_and_batches(write, change, task):
    config = load_deferred(write(SEGMENTATION, change))
    if task is not None:
        assert task_of(config).name == task
        return
    with pytest.raises(TRGError, match='to be for one trainer of torchdistill, got'):
        task_of(config)


def test_models_are_built_as_with_their_weights_and_without_a_download(write):
    model = "'deeplabv3_mobilenet_v3_large'\n    kwargs: {weights: 'COCO_WITH_VOC_LABELS_V1', num_classes: 21}"
    config = load_deferred(
        write(SEGMENTATION, ("'fcn_cifar_resnet'\n    kwargs: {backbone: 'resnet20', num_classes: 5}", model))
    )
    with offline() as refused:
        built = task_of(config).build(config, ('models', 'teacher_model'), None)
    assert refused == []
    assert built.aux_classifier is not None


def test_batches_without_the_function_of_the_trainer(write, capsys):
    code, report = checked(write(SEGMENTATION, ("collate_fn: 'coco_seg_collate_fn'", 'collate_fn:')), capsys)
    assert code == 1
    assert "write `collate_fn: 'coco_seg_collate_fn'` under `train_data_loader:`" in report['error']


def test_a_file_under_home_is_none_for_the_example_trainer(write, capsys):
    text = (TASKS / 'configs' / f'{SEGMENTATION}.yaml').read_text()
    line = next(line for line in text.split('\n') if 'dst_ckpt:' in line)
    code, report = checked(write(SEGMENTATION, (line, "    dst_ckpt: '~/student.pt'")), capsys)
    assert (code, report['error']) == (0, None)
    found = [each['text'] for each in report['warnings'] if '~' in each['text']]
    assert len(found) == 1
    assert found[0].endswith(f'the name of a folder; write {Path.home()}/student.pt')


def test_what_is_counted_in_the_data_does_not_keep_a_yaml_from_being_checked(write, capsys):
    counted = """
    key: 'poly_lr_scheduler'
    kwargs:
      num_iterations: !import_call
        key: 'utils.dataset.get_num_iterations'
        init: {kwargs: {dataset: *train, batch_size: 16, world_size: 1}}
      num_epochs: 10"""
    scheduler = "\n    key: 'CosineAnnealingLR'\n    kwargs: {T_max: 10}"
    config = write(
        SEGMENTATION, (scheduler, counted), ('shapes/train: !import_call', 'shapes/train: &train !import_call')
    )
    code, report = checked(config, capsys)
    assert (code, report['error']) == (0, None)
