"""TextMask: which tokens of a text take part, and Student4TRG with it alone."""

import pytest
import torch
from torch import nn

from trg_torchdistill import Student4TRG
from trg_torchdistill.errors import TRGError
from trg_torchdistill.wrappers import TextMask

IDS = torch.tensor([[101, 7, 8, 102, 9, 102], [101, 7, 102, 0, 0, 0]])
ATTENTION = (IDS > 0).long()


class Words(nn.Module):
    """Takes a batch as the classifiers of transformers do."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(200, 4)

    def forward(self, input_ids, attention_mask=None, labels=None):
        return self.embedding(input_ids)


def wrap(**options):
    options = {'token_mask': {'special_ids': [101, 102]}, **options}
    return Student4TRG(student_model=Words(), device=torch.device('cpu'), device_ids=None, distributed=False, **options)


def test_padding_and_special_tokens_do_not_take_part():
    expected = [[False, True, True, False, True, False], [False, True, False, False, False, False]]
    assert TextMask([101, 102])(ATTENTION, IDS).tolist() == expected
    assert torch.equal(TextMask()(ATTENTION, IDS), ATTENTION.bool())


def test_without_an_attention_mask_nothing_is_padding():
    assert TextMask()(None, IDS).all()
    assert torch.equal(TextMask([0])(None, IDS), IDS != 0)


def test_a_hook_of_the_wrapper_sees_the_mask_and_the_state_dict_is_the_plain_students():
    wrapper, seen = wrap(), []
    wrapper.token_mask.register_forward_hook(lambda module, args, output: seen.append(output))
    output = wrapper(input_ids=IDS, attention_mask=ATTENTION, labels=torch.zeros(2))
    assert output.shape == (2, 6, 4)
    assert torch.equal(seen[0], TextMask([101, 102])(ATTENTION, IDS))
    Words().load_state_dict(wrapper.state_dict(), strict=True)


@pytest.mark.parametrize(
    ('arguments', 'found'),
    [
        ((None, None), 'got none'),
        ((torch.ones(2, 1, 1, 6), None), r'got shape \[2, 1, 1, 6\]'),
        ((ATTENTION, None), r'got shape \[2, 6\]'),
        ((ATTENTION[:, None, None], IDS), r'got shape \[2, 6\] and shape \[2, 1, 1, 6\]'),
    ],
)
def test_a_batch_without_what_is_needed(arguments, found):
    with pytest.raises(TRGError, match=f'expected a batch with `input_ids` and `attention_mask` .* {found}; call the'):
        TextMask([101])(*arguments)


def test_a_mask_that_is_added_to_logits_is_not_inverted():
    with pytest.raises(TRGError, match=r'expected the `attention_mask` of the batch to be a mask .* down to -10000'):
        TextMask()((1 - ATTENTION) * -1e4, IDS)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'special_ids': '101'}, "expected `special_ids` to be a list of integers, got '101'; it stands under `token_"),
        ({'special_ids': [-1]}, 'expected `special_ids` to be an integer >= 0, got -1; it stands under `token_mask:`'),
        ({'special_id': [1]}, 'got `special_id`; did you mean `special_ids`\\?'),
        ([101], 'expected `token_mask` to be a mapping with keys among'),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(TRGError, match=message):
        wrap(token_mask=options)
