"""`trg-torchdistill add` where models have wrappers or are redesigned; the host's own box trains what was written."""

import pytest

from tests.integration.add_yaml import CONFIG, STUDENT_BLOCK, changes, run_add, tiny_models, train_all_epochs, upgrade  # noqa: F401
from tests.integration.host import SRD_TERM, indent
from tests.unit.test_wrappers_inner import WRAPPERS, block, layer4
from trg_torchdistill.cli.recipe.deferred import load_deferred
from trg_torchdistill.errors import TRGError
from trg_torchdistill.wrappers import Student4TRG

SRD = """    auxiliary_model_wrapper:   # of SRD
      key: 'SRDModelWrapper'
      kwargs:
        input_module: {path: 'model.layer4', io: 'output'}
        norm_kwargs: {num_features: 12}   # the width of the teacher
"""
LINEAR = '        linear_kwargs: {in_features: STUDENT_WIDTH, out_features: 12}\n'
SRD_HOOK = "    forward_hook: {input: [], output: ['model.layer4', 'norm_layer']}\n"
# A real method with a wrapper on each side.
BESIDE_SRD = (
    CONFIG.replace('  student:\n', f'{SRD}{SRD_HOOK}  student:\n')
    .replace('  optimizer:', f'{SRD}{LINEAR}{SRD_HOOK}  optimizer:')
    .replace('# after', f'{indent(SRD_TERM, 8)}# after')
    .replace("    wrapper: 'DistributedDataParallel'\n", '    wrapper:\n')
)


@pytest.mark.parametrize('width', [12, 8])
def test_a_method_with_a_wrapper_on_each_side_goes_on_beside_trg(width, tmp_path, capsys):
    text = BESIDE_SRD.replace('STUDENT_WIDTH', str(width))
    old, new = upgrade(tmp_path, text, '--contextual-weight', '1', models=('cnn12', f'cnn{width}'))
    config = load_deferred(str(new))
    projections = ['projectors.layer4'] * (width == 8)
    assert config.get('train', 'student', 'forward_hook', 'output') == ['model.layer4', 'norm_layer', *projections]
    terms = config.get('train', 'criterion', 'kwargs', 'sub_terms')
    for name in ('trg', 'contextual'):
        kwargs = terms[name]['criterion']['kwargs']
        assert (kwargs['student_module_path'], kwargs['teacher_module_path']) == ('model.layer4', 'model.layer4')
    if width == 8:
        assert "the student's wrapper `SRDModelWrapper` is now the `inner:` one" in ' '.join(
            capsys.readouterr().out.split()
        )
        assert new.read_text().count('# of SRD') == new.read_text().count('# the width of the teacher') == 2
        wrapper = load_deferred(str(old)).get('train', 'student', 'auxiliary_model_wrapper')
        assert config.get('train', 'student', 'auxiliary_model_wrapper', 'kwargs', 'inner') == wrapper
        assert config.get('train', 'student', 'wrapper') is None
        train_all_epochs(new, moves='projectors.layer4')
    else:
        assert changes(old, new)[1:] == ([], [])
    box = train_all_epochs(new, moves='linear')
    assert isinstance(box.student_model, Student4TRG) == (width == 8)


@pytest.mark.parametrize('width', [12, 8])
def test_a_home_folder_stays_as_it_is_written(width, tmp_path):
    file = "src_ckpt: '~/no/such/file.pt'"
    text = BESIDE_SRD.replace('STUDENT_WIDTH', str(width)).replace("src_ckpt: './no/such/file.pt'", file)
    _, new = upgrade(tmp_path, text, models=('cnn12', f'cnn{width}'))
    assert file in new.read_text()


@pytest.mark.parametrize('key', WRAPPERS)
def test_each_wrapper_of_the_student_has_a_place_beside_trg(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = CONFIG.replace(STUDENT_BLOCK, f'{STUDENT_BLOCK}\n    auxiliary_model_wrapper: {block(key)}')
    text = text.replace("    wrapper: 'DistributedDataParallel'\n", '').replace('STUDENT_WIDTH', '8')
    _, new = upgrade(tmp_path, text, models=('cnn12', 'cnn8'))
    wrapper = load_deferred(str(new)).get('train', 'student', 'auxiliary_model_wrapper')
    assert wrapper['kwargs']['inner'] == block(key)
    assert wrapper['kwargs']['projectors']['layer4']['path'] == layer4(key)


TRAINED = """    auxiliary_model_wrapper:
      key: 'SSWrapper4SSKD'
      kwargs: {input_module: {path: 'model.pool', io: 'output'}, feat_dim: 12, ss_module_ckpt: './none.pt'}
    forward_hook: {input: [], output: ['model.pool']}
    frozen_modules: ['model']
"""


def beside_the_teacher(wrapper):
    return CONFIG.replace('  student:\n', f'{wrapper}  student:\n')


@pytest.mark.parametrize('frozen', ['    requires_grad: False\n', '    requires_grad: True\n', ''])
def test_a_wrapper_of_the_teacher_may_be_trained_and_the_teacher_may_not(frozen, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = beside_the_teacher(TRAINED).replace('    requires_grad: False\n', frozen)
    _, new = upgrade(tmp_path, text)
    config = load_deferred(str(new))
    assert config.get('train', 'teacher', 'forward_hook', 'output') == ['model.pool', 'model.layer4']
    assert config.get('train', 'teacher', 'requires_grad') == {'False': False, 'True': True}.get(frozen[-6:-1].strip())
    is_frozen = 'False' in frozen
    assert ('the teacher is not put in eval mode' in ' '.join(capsys.readouterr().out.split())) != is_frozen
    train_all_epochs(new, teacher_is_frozen=is_frozen)
    with pytest.raises(TRGError, match='the teacher is trained; TRG needs a frozen one'):
        upgrade(tmp_path, text.replace("['model']", '[]').replace('grad: False', 'grad: True'), '--overwrite')


EMPTY = CONFIG.replace(STUDENT_BLOCK, f"{STUDENT_BLOCK}\n    auxiliary_model_wrapper: {{key: 'EmptyModule', kwargs: }}")
ROW = CONFIG.replace('sequential: []', "sequential: ['layer3']", 1)
SHRINK = "    adaptations: {shrink: {key: 'Conv2d', kwargs: {in_channels: 12, out_channels: 8, kernel_size: 1}}}\n"
ADAPTED = ROW.replace("['layer3']", "['layer3', '+shrink']").replace('  student:\n', f'{SHRINK}  student:\n')
OF_STUDENT = CONFIG.replace(STUDENT_BLOCK, STUDENT_BLOCK.replace('[]', "['layer3', 'layer4']"))


@pytest.mark.parametrize(
    ('text', 'models', 'layers'),
    [
        (ROW, ('cnn12', 'cnn12'), ['layer4', 'layer3']),
        (ADAPTED, ('cnn12', 'cnn8'), ['layer4', '+shrink']),
        (OF_STUDENT, ('cnn12', 'cnn12'), ['layer4', 'layer4']),
        (OF_STUDENT.replace("['layer3', 'layer4']", "['layer3']"), ('cnn12', 'cnn12'), ['layer3', 'layer3']),
    ],
    ids=['teacher', 'adaptation of the teacher', 'student', 'teacher like the student'],
)
def test_the_layers_of_a_redesigned_model_are_those_that_run(text, models, layers, tmp_path):
    _, new = upgrade(tmp_path, text, models=models)
    config = load_deferred(str(new))
    found = [config.get('train', side, 'forward_hook', 'output') for side in ('student', 'teacher')]
    assert found == [[layer] for layer in layers]


NOT_RUN = OF_STUDENT.replace("['layer3', 'layer4']", "['layer3']")


@pytest.mark.parametrize(
    ('text', 'models', 'message'),
    [
        (EMPTY, ('cnn12', 'cnn12'), r'expected the student to run in `train` .*, got `EmptyModule` in its place'),
        (NOT_RUN, ('cnn12', 'cnn8'), r'redesigns the student, .* layer3 is 8 wide, layer4 of the teacher 12; choose'),
        (
            beside_the_teacher(SRD.replace('norm_k', 'norm_quark')),
            ('cnn12', 'cnn12'),
            '`SRDModelWrapper` refused its a',
        ),
        (beside_the_teacher(SRD.replace("'SRDM", "'SRDmm")), ('cnn12', 'cnn12'), 'mean `SRDModelWrapper`'),
    ],
)
def test_what_cannot_stand_beside_trg_is_told_and_nothing_is_written(text, models, message, tmp_path):
    with pytest.raises(TRGError, match=message):
        upgrade(tmp_path, text, models=models)
    assert [path.name for path in tmp_path.iterdir()] == ['old.yaml']


def test_an_alias_around_the_wrapper_is_named(tmp_path):
    text = BESIDE_SRD.replace('STUDENT_WIDTH', '8').replace('  student:\n    f', '  student: &student\n    f')
    shared = text.index('  student: &student\n'), text.index('  optimizer:')
    block = text[slice(*shared)]
    text = f'_shared:\n{block}\n{text[: shared[0]]}  student: *student\n{text[shared[1] :]}'
    with pytest.raises(TRGError, match='is written elsewhere, under an alias; write out the aliases of that block'):
        upgrade(tmp_path, text, models=('cnn12', 'cnn8'))
