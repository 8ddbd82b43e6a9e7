"""What `trg-torchdistill add` refuses, with which message, and that it writes nothing then."""

import pytest

from tests.integration.add_yaml import CONFIG, HOOKED, STAGES, STUDENT_BLOCK, run_add, tiny_models, upgrade  # noqa: F401
from trg_torchdistill.errors import TRGError


def test_a_second_add_refuses(tmp_path):
    _, new = upgrade(tmp_path, CONFIG)
    with pytest.raises(TRGError, match='has TRG in it already'):
        run_add(new, '-o', tmp_path / 'third.yaml')
    assert not (tmp_path / 'third.yaml').exists()


PAIR = ('cnn12', 'cnn12')
UNEQUAL = ('cnn12', 'cnn8')
STAGE1, STAGE2 = STAGES.split('  stage2:')
WRAPPER = CONFIG.replace(STUDENT_BLOCK, f"{STUDENT_BLOCK}\n    auxiliary_model_wrapper: {{key: 'X', kwargs: {{}}}}")
EITHER = HOOKED.replace('student: {io:', 'either: {io:').replace('teacher: {io:', 'other: {io:')
UNTRAINED = f'{STAGE1}  stage2:' + STAGE2.replace('optimizer:', '_optimizer:')


@pytest.mark.parametrize(
    ('text', 'models', 'options', 'message'),
    [
        (CONFIG.replace('  teacher_model:', '  _teacher_model:'), PAIR, (), 'to have a teacher, got none'),
        (
            WRAPPER,
            PAIR,
            (),
            r"to be the key of a registered auxiliary model wrapper, got 'X'",
        ),
        (EITHER, UNEQUAL, (), r"is 'layer3', which both models hook: .* `--student-layer`"),
        (UNTRAINED, UNEQUAL, (), r'`train\.stage2` .* has no `optimizer:` of its own'),
        (CONFIG.replace('requires_grad: False', 'requires_grad: True'), PAIR, (), 'the teacher is trained'),
        (CONFIG.replace('sub_terms:', '_sub_terms:'), PAIR, (), r'to have terms under `kwargs\.sub_terms`'),
        (CONFIG, PAIR, ('--stage', 'stage2'), 'to be a stage with a teacher'),
        (
            CONFIG,
            ('cnn12', 'cnn13'),
            (),
            r'`models\.student_model\.key` .* a registered model, got .cnn13.; did you mean',
        ),
        (CONFIG, PAIR, ('--student-layer', 'layer9'), 'got .layer9.; did you mean `layer'),
        (CONFIG, PAIR, ('--teacher-layer', 'fc.weight'), 'got .fc.weight.'),
        (CONFIG.replace('models:', 'dependencies: [no_such_package]\n\nmodels:'), PAIR, (), 'installed packages'),
        (CONFIG.replace('kwargs: {}', "kwargs: {}\n    repo_or_dir: 'some/thing'"), PAIR, (), 'without a download'),
        (CONFIG.replace('kwargs: {}', 'kwargs: {colour: 3}'), PAIR, (), 'refused its arguments'),
        (CONFIG + '}', PAIR, (), 'to be valid YAML, got on line'),
    ],
)
def test_what_cannot_be_upgraded_is_refused_and_nothing_is_written(tmp_path, text, models, options, message):
    with pytest.raises(TRGError, match=message):
        upgrade(tmp_path, text, *options, models=models)
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
