"""YAML -> torchdistill's box -> steps on the CPU: the smallest edit, the full method, and every kind of model."""

import math

import pytest
import torch
from host import (
    BOTH_PROCESSES,
    KD,
    TinyCnn,
    TinyDeit,
    TinyHuggingFace,
    box_from,
    full_method,
    one_step,
    our_losses,
    projection,
    tiny_swin,
    tiny_vit,
    train_epoch,
    train_yaml,
    trg_term,
)
from torchdistill.core.distillation import DistillationBox

CONTEXTUAL = trg_term(name='contextual', key='TokenContextualLoss')
ALL_TOKENS = 'tokens_per_image: null'


def assert_loss_falls(box, steps=25):
    """On one fixed batch the total loss and the sum of our terms fall, and both stay finite."""
    totals, ours = [], []
    for _ in range(steps):
        totals.append(float(one_step(box)))
        ours.append(sum(float(term) for loss in our_losses(box).values() for _, term in loss.terms().values()))
    assert all(math.isfinite(value) for value in totals + ours)
    assert min(ours) > 0
    assert totals[-1] < 0.8 * totals[0]
    assert ours[-1] < 0.95 * ours[0]


def test_smallest_edit_needs_no_wrapper_and_no_process(tmp_path):
    box = box_from(tmp_path, train_yaml(trg_term(options=ALL_TOKENS) + CONTEXTUAL), TinyCnn(8), TinyCnn(8))
    assert type(box) is DistillationBox
    assert isinstance(box.student_model, TinyCnn)
    assert_loss_falls(box)
    assert list(our_losses(box)['trg'].terms()) == ['local', 'global']
    assert list(our_losses(box)['contextual'].terms()) == ['contextual']


def test_full_method(tmp_path):
    box = box_from(tmp_path, full_method())
    before = {name: value.clone() for name, value in box.student_model.projectors.named_parameters()}
    assert_loss_falls(box)
    assert set(before) == {'layer4.linear.weight', 'layer4.linear.bias'}
    for name, value in box.student_model.projectors.named_parameters():
        assert (value != before[name]).all(), f'{name} has entries that did not move'


def test_projector_weights_are_in_the_optimizer_once(tmp_path):
    box = box_from(tmp_path, full_method())
    optimized = [id(value) for group in box.optimizer.param_groups for value in group['params']]
    for parameter in box.student_model.parameters():
        assert optimized.count(id(parameter)) == 1
    for parameter in box.teacher_model.parameters():
        assert id(parameter) not in optimized


NO_CLASS_TOKEN = '{num_prefix_tokens: 1}'


def tokens(student='', teacher=''):
    """Options of a term that say what the tokens of each side are."""
    sides = {'student_tokens': student, 'teacher_tokens': teacher}
    return ''.join(f'{name}: {options}\n' for name, options in sides.items() if options)


def hooked(path):
    return f"forward_hook: {{input: [], output: ['{path}']}}"


def alike(model, path='layer4', options='', teacher=None):
    """A row of one kind of model on both sides: builders, hooks and the term."""
    return teacher or model, model, hooked(path), hooked(path), trg_term(path, path, options)


def projected(teacher, student, teacher_path, path, widths, options, tokens=''):
    """A row with a projection of the student's feature: builders, hooks and the term."""
    name = path.split('.')[-1]
    block = projection(name, path, *widths)
    block = block.replace(f'{widths[1]}}}', f'{widths[1]}, tokens: {tokens}}}') if tokens else block
    term = trg_term(f'student_model.{path}', teacher_path, f"projection_module_path: 'projectors.{name}'\n{options}")
    return teacher, student, hooked(teacher_path), block, term


def wide_cnn():
    return TinyCnn(12)


def coarse_cnn(width=8):
    return TinyCnn(width, side=2)


VIT_TO_VIT = tokens(NO_CLASS_TOKEN, NO_CLASS_TOKEN)
BHWC = "{layout: 'bhwc'}"
KINDS = {
    'pooled vectors': alike(TinyCnn, 'pool'),
    'patches of 2 x 2': alike(TinyCnn, options=tokens('{patch_size: 2}', '{patch_size: 2}')),
    'smaller teacher grid': alike(TinyCnn, options=ALL_TOKENS, teacher=coarse_cnn),
    'smaller student grid': alike(coarse_cnn, options=ALL_TOKENS, teacher=TinyCnn),
    'smaller student grid, projected': projected(wide_cnn, coarse_cnn, 'layer4', 'layer4', (8, 12), ALL_TOKENS),
    'smaller teacher grid, projected': projected(
        lambda: coarse_cnn(12), TinyCnn, 'layer4', 'layer4', (8, 12), ALL_TOKENS
    ),
    'Swin maps': alike(tiny_swin, 'features.3', tokens(BHWC, BHWC)),
    'CNN from Swin': projected(tiny_swin, TinyCnn, 'features.3', 'layer4', (8, 16), tokens(teacher=BHWC)),
    'ViT sequences': alike(tiny_vit, 'encoder.ln', VIT_TO_VIT),
    'ViT, an encoder layer': alike(tiny_vit, 'encoder.layers.encoder_layer_0', VIT_TO_VIT),
    'ViT, wider teacher of finer patches': projected(
        lambda: tiny_vit(20, 2), tiny_vit, 'encoder.ln', 'encoder.ln', (16, 20), VIT_TO_VIT, NO_CLASS_TOKEN
    ),
    'CNN from ViT': projected(tiny_vit, TinyCnn, 'encoder.ln', 'layer4', (8, 16), tokens(teacher=NO_CLASS_TOKEN)),
    'ViT from CNN': projected(
        TinyCnn, tiny_vit, 'layer4', 'encoder.ln', (16, 8), tokens(NO_CLASS_TOKEN), NO_CLASS_TOKEN
    ),
    'DeiT-like tuple of heads': alike(TinyDeit, options=ALL_TOKENS),
    'ModelOutput-like object': alike(TinyHuggingFace, options=ALL_TOKENS),
}


@pytest.mark.filterwarnings('ignore:expected `num_neighbors`')
@pytest.mark.parametrize(('teacher', 'student', 'teacher_hook', 'student_part', 'terms'), KINDS.values(), ids=KINDS)
def test_loss_falls_for_every_kind_of_model(tmp_path, teacher, student, teacher_hook, student_part, terms):
    adam = "optimizer: {key: 'Adam', kwargs: {lr: 0.01}}"
    text = train_yaml(terms, teacher_hook, student_part, BOTH_PROCESSES, adam)
    assert_loss_falls(box_from(tmp_path, text, teacher(), student()))


def test_two_terms_at_two_layers(tmp_path):
    terms = (
        trg_term('student_model.layer4', options="projection_module_path: 'projectors.layer4'", name='trg_late')
        + trg_term('student_model.layer3', 'layer3', "projection_module_path: 'projectors.layer3'", name='trg_early')
        + trg_term('student_model.layer3', 'layer3', name='contextual', key='TokenContextualLoss')
    )
    student = """
        auxiliary_model_wrapper:
          key: 'Student4TRG'
          kwargs:
            projectors:
              layer3: {path: 'student_model.layer3', io: 'output', in_features: 8, out_features: 12}
              layer4: {path: 'student_model.layer4', io: 'output', in_features: 8, out_features: 12}
        forward_hook:
          input: []
          output: ['student_model.layer3', 'student_model.layer4', 'projectors.layer3', 'projectors.layer4']
        """
    teacher = "forward_hook: {input: [], output: ['layer3', 'layer4']}"
    box = box_from(tmp_path, train_yaml(terms, teacher, student, BOTH_PROCESSES))
    assert_loss_falls(box)
    assert list(our_losses(box)) == ['trg_late', 'trg_early', 'contextual']


def test_hooked_input_of_a_module(tmp_path):
    hook = "forward_hook: {input: ['layer4'], output: []}"
    text = train_yaml(trg_term(options=ALL_TOKENS).replace("'output'", "'input'"), hook, hook)
    assert_loss_falls(box_from(tmp_path, text, TinyCnn(8)))


def test_logits_of_a_two_headed_student_are_their_mean_in_the_hosts_own_kd(tmp_path):
    box = box_from(tmp_path, full_method(KD), TinyDeit(12), TinyDeit(8))
    assert_loss_falls(box)
    for head in (box.org_student_model.fc, box.org_student_model.head_dist):
        assert head.weight in box.optimizer.state, 'a head got no gradient'


def trained(tmp_path, compiles):
    torch.manual_seed(0)
    contextual = trg_term('student_model.layer4', name='contextual', key='TokenContextualLoss')
    box = box_from(tmp_path, full_method(contextual), num_images=16)
    if compiles:
        box.org_student_model.compile(backend='aot_eager')
    losses = [train_epoch(box, epoch) for epoch in range(2)]
    return losses, {name: loss.epoch_means() for name, loss in our_losses(box).items()}


@pytest.mark.slow
def test_a_student_compiled_in_place_trains_like_a_plain_one(tmp_path):
    """Its hooks still see the features."""
    from torch._dynamo.utils import counters  # takes seconds

    torch.compiler.reset()
    counters.clear()
    plain, compiled = trained(tmp_path, False), trained(tmp_path, True)
    assert counters['stats']['unique_graphs'] > 0
    for losses, expected in zip(compiled[0], plain[0], strict=True):
        assert losses == pytest.approx(expected, rel=1e-4)
    for name, means in plain[1].items():
        assert compiled[1][name] == pytest.approx(means, rel=1e-4)
