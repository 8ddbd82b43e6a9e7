"""`token_mask`, `layout: bld` and `key` in the host's own box: its hooks keep masks, image lists and mappings."""

import pytest
import torch
from host import BOTH_PROCESSES, NUM_CLASSES, box_from, one_step, train_yaml, trg_term
from test_distillation_box import assert_loss_falls
from torch import nn
from torchvision.models.detection.image_list import ImageList

pytestmark = pytest.mark.filterwarnings('ignore:expected `num_neighbors`')


class Backbone(nn.Module):
    """{'aux': [B, width, 8, 8], 'out': [B, width, 4, 4]} of 16 x 16 images."""

    def __init__(self, width):
        super().__init__()
        self.layer3, self.layer4 = nn.Conv2d(3, width, 3, 2, 1), nn.Conv2d(width, width, 3, 2, 1)

    def forward(self, images):
        early = self.layer3(images)
        return {'aux': early, 'out': self.layer4(early.relu())}


class Padding(nn.Module):
    """An image list, as torchvision's transform of a detection model returns it: every other image is half as wide."""

    def forward(self, images):
        return ImageList(images, [(16, 16 if place % 2 else 8) for place in range(len(images))]), None


class Detector(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.padding, self.backbone, self.fc = Padding(), Backbone(width), nn.Linear(width, NUM_CLASSES)

    def forward(self, images):
        images = self.padding(images)[0].tensors
        return self.fc(self.backbone(images)['out'].mean((2, 3)))


class Reader(nn.Module):
    """Reads the rows of an image as a text of 16 words, with a class token before them; two to nine words count."""

    def __init__(self, width=8):
        super().__init__()
        self.words, self.mask, self.fc = nn.Linear(48, width), nn.Identity(), nn.Linear(width, NUM_CLASSES)

    def forward(self, images):
        words = images.transpose(1, 2).flatten(2)
        words = torch.cat([words.mean(1, keepdim=True), words], 1)
        lengths = 3 + torch.arange(len(images)) % 8
        mask = self.mask((torch.arange(17) < lengths[:, None]).long())
        return self.fc((self.words(words) * mask[:, :, None]).mean(1))


def text_of(kind, tokens, mask):
    """A student of half the teacher's width, with a projection, and both losses."""
    feature, source = {'detector': ('backbone', 'padding'), 'text': ('words', 'mask')}[kind]
    options = f'student_tokens: {tokens}\nteacher_tokens: {tokens}\ntoken_mask: {mask}\n'
    path = f'student_model.{feature}'
    terms = trg_term(path, feature, f"projection_module_path: 'projectors.own'\n{options}")
    terms += trg_term(path, feature, options, 'contextual', 'TokenContextualLoss')
    student = f"""
        auxiliary_model_wrapper:
          key: 'Student4TRG'
          kwargs:
            projectors:
              own: {{path: '{path}', io: 'output', in_features: 8, out_features: 12, tokens: {tokens}}}
        forward_hook: {{input: [], output: ['{path}', 'student_model.{source}', 'projectors.own']}}
        """
    teacher = f"forward_hook: {{input: [], output: ['{feature}', '{source}']}}"
    return train_yaml(terms, teacher, student, BOTH_PROCESSES)


KINDS = {
    'image list of the student': ('detector', "{key: 'out'}", "{path: 'student_model.padding'}"),
    'image list of the teacher': ('detector', "{key: 'aux'}", "{path: 'padding', side: 'teacher'}"),
    'text': ('text', "{layout: 'bld', num_prefix_tokens: 1}", "{path: 'student_model.mask'}"),
}
MODELS = {'detector': Detector, 'text': Reader}


@pytest.mark.parametrize(('kind', 'tokens', 'mask'), KINDS.values(), ids=KINDS)
def test_loss_falls_with_padding(tmp_path, kind, tokens, mask):
    model = MODELS[kind]
    assert_loss_falls(box_from(tmp_path, text_of(kind, tokens, mask), model(12), model()))


def test_a_mapping_without_a_key_names_its_entries_before_the_first_step(tmp_path):
    text = text_of('detector', '{}', "{path: 'student_model.padding'}")
    with pytest.raises(
        ValueError, match=r"got a mapping with \['aux', 'out'\]; add `key: 'aux'`, or another of them, to "
    ):
        one_step(box_from(tmp_path, text, Detector(12), Detector()))
