"""What `trg-torchdistill add` refuses, with which message, and that it writes nothing then."""

import pytest

from tests.integration.add_yaml import CONFIG, HOOKED, STAGES, STUDENT_BLOCK, run_add, tiny_models, upgrade  # noqa: F401
from trg_torchdistill.errors import TRGError


def test_a_path_that_could_be_either_models_is_refused(tmp_path):
    text = HOOKED.replace('student: {io:', 'either: {io:').replace('teacher: {io:', 'other: {io:')
    with pytest.raises(TRGError, match=r"is 'layer3', which both models hook: .* `--student-layer`"):
        upgrade(tmp_path, text, models=('cnn12', 'cnn8'))
    assert not (tmp_path / 'new.yaml').exists()


def test_a_second_add_refuses(tmp_path):
    _, new = upgrade(tmp_path, CONFIG)
    with pytest.raises(TRGError, match='has TRG in it already'):
        run_add(new, '-o', tmp_path / 'third.yaml')
    assert not (tmp_path / 'third.yaml').exists()


SEQUENTIAL = CONFIG.replace('sequential: []', "sequential: ['layer3']", 1)
WRAPPER = CONFIG.replace(STUDENT_BLOCK, f"{STUDENT_BLOCK}\n    auxiliary_model_wrapper: {{key: 'X', kwargs: {{}}}}")


@pytest.mark.parametrize(
    ('text', 'options', 'message'),
    [
        (CONFIG.replace('  teacher_model:', '  _teacher_model:'), (), 'to have a teacher, got none'),
        (WRAPPER, (), r"auxiliary_model_wrapper` \(line \d+\) is 'X' already"),
        (SEQUENTIAL, (), r'`train\.teacher\.sequential` \(line \d+\) redesigns the teacher'),
        (CONFIG.replace('requires_grad: False', 'requires_grad: True'), (), 'the teacher is trained'),
        (CONFIG.replace('sub_terms:', '_sub_terms:'), (), r'to have terms under `kwargs\.sub_terms`'),
        (CONFIG, ('--stage', 'stage2'), 'to be a stage with a teacher'),
        (CONFIG, ('--student-layer', 'layer9'), 'got .layer9.; did you mean `layer'),
        (CONFIG, ('--teacher-layer', 'fc.weight'), 'got .fc.weight.'),
        (CONFIG.replace('models:', 'dependencies: [no_such_package]\n\nmodels:'), (), 'to name installed packages'),
        (CONFIG.replace('kwargs: {}', "kwargs: {}\n    repo_or_dir: 'someone/something'"), (), 'without a download'),
        (CONFIG.replace('kwargs: {}', 'kwargs: {colour: 3}'), (), 'refused its arguments'),
        (CONFIG + '}', (), 'to be valid YAML, got on line'),
    ],
)
def test_what_cannot_be_upgraded_is_refused_and_nothing_is_written(tmp_path, text, options, message):
    with pytest.raises(TRGError, match=message):
        upgrade(tmp_path, text, *options)
    assert [path.name for path in tmp_path.iterdir()] == ['old.yaml']


def test_an_existing_file_is_replaced_on_request_only(tmp_path):
    (tmp_path / 'new.yaml').write_text('mine')
    with pytest.raises(TRGError, match='--overwrite'):
        upgrade(tmp_path, CONFIG)
    assert (tmp_path / 'new.yaml').read_text() == 'mine'
    upgrade(tmp_path, CONFIG, '--overwrite')
    assert 'trg_torchdistill' in (tmp_path / 'new.yaml').read_text()


def test_a_hub_model_of_a_local_folder_is_built(tmp_path):
    (tmp_path / 'hubconf.py').write_text('import torch\ndef net():\n    return torch.nn.Linear(1, 1)\n')
    text = CONFIG.replace('kwargs: {}', f"kwargs: {{source: 'local'}}\n    repo_or_dir: '{tmp_path}'")
    with pytest.raises(TRGError, match='to take images of one size'):
        upgrade(tmp_path, text, models=('cnn8', 'net'))


def test_another_stage_is_offered_where_the_last_one_cannot_take_it(tmp_path):
    before, last = STAGES.split('  stage2:')
    taken = last.replace('      sequential: []', "      sequential: ['layer3']", 1)
    with pytest.raises(TRGError, match=r'redesigns the teacher.* `--stage stage1`'):
        upgrade(tmp_path, f'{before}  stage2:{taken}')


def test_a_projection_without_an_optimizer_to_train_it_is_refused(tmp_path):
    before, last = STAGES.split('  stage2:')
    with pytest.raises(TRGError, match=r'`train\.stage2` .* has no `optimizer:` of its own'):
        upgrade(tmp_path, f'{before}  stage2:{last.replace("optimizer:", "_optimizer:")}', models=('cnn12', 'cnn8'))
