"""Texts through torchdistill's box as its trainers of texts call it: real BERTs, a batch as keywords, padding."""

import pytest
import torch
from host import BOTH_PROCESSES, CPU, SGD, load, stage, trg_term
from tiny_bert import LAYER, WORDS, tiny_bert
from torch.utils.data import Dataset
from torchdistill.core.distillation import get_distillation_box

from trg_torchdistill.errors import TRGError

STUDENT = f'student_model.{LAYER}'
LENGTHS = (9, 4, 6, 1)
TEXTS = "student_tokens: {layout: 'bld'}\nteacher_tokens: {layout: 'bld'}\n"
MASK = "token_mask: {path: 'token_mask'}\n"
KD = """
kd:
  criterion:
    key: 'KDLoss'
    kwargs: {student_module_path: 'student_model.classifier', student_module_io: 'output',
             teacher_module_path: 'classifier', teacher_module_io: 'output', temperature: 2.0, alpha: 0.5,
             reduction: 'batchmean'}
  weight: 1.0
"""
PROJECTION = "projection_module_path: 'projectors.last'\n"


class Texts(Dataset):
    """Texts of LENGTHS words between [CLS] and [SEP], padded to `length`; the padding holds the token `padding`."""

    def __init__(self, length=12, padding=0):
        generator = torch.Generator().manual_seed(0)
        self.items = []
        for label, words in enumerate(LENGTHS):
            ids = torch.full((length,), padding)
            ids[: words + 2] = torch.tensor([2, *torch.randint(5, len(WORDS), (words,), generator=generator), 3])
            mask = (torch.arange(length) < words + 2).long()
            self.items.append({'input_ids': ids, 'attention_mask': mask, 'labels': torch.tensor(label % 3)})

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def train_block(terms, hooks='', options='{}'):
    projector = f"path: '{STUDENT}', io: 'output', in_features: 16, out_features: 24, tokens: {{layout: 'bld'}}"
    sides = f"""
teacher:
  forward_proc: 'forward_batch_only_as_kwargs'
  requires_grad: False
  forward_hook: {{input: [], output: ['classifier', '{LAYER}']}}
student:
  forward_proc: 'forward_batch_only_as_kwargs'
  auxiliary_model_wrapper:
    key: 'Student4TRG'
    kwargs: {{token_mask: {options}, projectors: {{last: {{{projector}}}}}}}
  forward_hook:
    input: []
    output: ['student_model.classifier', '{STUDENT}', 'projectors.last', 'token_mask'{hooks}]
{BOTH_PROCESSES}"""
    in_order = """
train_data_loader:
  dataset_id: 'train'
  sampler: {class_or_func: !import_get {key: 'torch.utils.data.SequentialSampler'}, kwargs: }
  kwargs: {batch_size: 4}
  requires_supp: False
"""
    return stage(1, terms, sides, SGD, in_order)


TRG = trg_term(STUDENT, LAYER, TEXTS + MASK + PROJECTION + 'tokens_per_image: null\n')
CONTEXTUAL = trg_term(STUDENT, LAYER, TEXTS + MASK, 'contextual', 'TokenContextualLoss')


def make_box(folder, text, data=None, teacher=None):
    models = teacher or tiny_bert(24, seed=1), tiny_bert(16)
    return get_distillation_box(*models, {'train': data or Texts()}, load(folder, text), CPU, None, False, 1)


def step(box):
    """The first step as the trainers of texts make it; returns the loss and the gradients."""
    box.pre_epoch_process(epoch=0)
    torch.manual_seed(0)
    loss = box.forward_process(next(iter(box.train_data_loader)), targets=None, supp_dict=None)
    loss.backward()
    return loss.detach(), {name: each.grad for name, each in box.student_model.named_parameters()}


@pytest.mark.parametrize('terms', [KD + TRG, CONTEXTUAL, TRG + CONTEXTUAL], ids=['KD + TRG', 'contextual', 'both'])
def test_padding_has_no_influence_to_the_last_bit(tmp_path, terms):
    loss, gradients = step(make_box(tmp_path, train_block(terms)))
    other_loss, other = step(make_box(tmp_path, train_block(terms), Texts(padding=17)))
    assert torch.equal(loss, other_loss)
    assert loss > 0
    for name, gradient in gradients.items():
        same = gradient is other[name] is None or torch.equal(gradient, other[name])
        assert same, f'the padding moves {name}'


def test_padding_has_influence_without_the_mask(tmp_path):
    terms = (TRG + CONTEXTUAL).replace(MASK.strip(), '')
    loss, _ = step(make_box(tmp_path, train_block(terms)))
    assert loss != step(make_box(tmp_path, train_block(terms), Texts(padding=17)))[0]


def test_longer_padding_changes_nothing_but_the_order_of_sums(tmp_path):
    loss, _ = step(make_box(tmp_path, train_block(TRG + CONTEXTUAL)))
    longer, _ = step(make_box(tmp_path, train_block(TRG + CONTEXTUAL), Texts(length=20)))
    assert longer.item() == pytest.approx(loss.item(), rel=1e-5)


def test_special_tokens_take_part_unless_they_are_named(tmp_path):
    counts = {}
    for options in ('{}', '{special_ids: [2, 3]}'):
        box = make_box(tmp_path, train_block(TRG, options=options))
        seen = []
        box.student_model.token_mask.register_forward_hook(lambda module, args, output, seen=seen: seen.append(output))
        step(box)
        counts[options] = seen[0].sum(1).tolist()
    assert counts['{}'] == [length + 2 for length in LENGTHS]
    assert counts['{special_ids: [2, 3]}'] == list(LENGTHS)


def test_the_encoder_itself_can_be_hooked_which_returns_a_model_output(tmp_path):
    whole = train_block(TRG.replace(STUDENT, 'student_model.bert.encoder'), ", 'student_model.bert.encoder'")
    whole = whole.replace(f"path: '{STUDENT}'", "path: 'student_model.bert.encoder'")
    assert step(make_box(tmp_path, whole))[0] == step(make_box(tmp_path, train_block(TRG)))[0]


def test_texts_of_other_lengths_are_refused_with_both(tmp_path):
    teacher = tiny_bert(24, seed=1)
    first_eleven = teacher.forward
    teacher.forward = lambda input_ids, attention_mask, labels: first_eleven(input_ids[:, :11], attention_mask[:, :11])
    with pytest.raises(TRGError, match=r"expected texts \('bld'\) of the same length, got 12 tokens .* 11 "):
        step(make_box(tmp_path, train_block(TRG), teacher=teacher))


def test_the_trained_student_is_saved_and_loaded_as_the_plain_model(tmp_path):
    box = make_box(tmp_path, train_block(KD + TRG, options='{special_ids: [2, 3]}'))
    weight = 'bert.encoder.layer.1.output.dense.weight'
    before = box.org_student_model.get_parameter(weight).clone()
    step(box)
    box.optimizer.step()
    student = box.org_student_model
    student.save_pretrained(tmp_path / 'trained')
    again = type(student).from_pretrained(tmp_path / 'trained')
    for name, value in again.named_parameters():
        assert torch.equal(value, dict(student.named_parameters())[name])
    assert not torch.equal(before, again.get_parameter(weight))
    again.load_state_dict(box.student_model.state_dict(), strict=True)
