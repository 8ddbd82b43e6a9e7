"""What the probe sees in real models: which modules run, what they return, and the layer that is taken."""

import functools

import pytest
import torch
from torch import nn
from torchvision import models

from tests.integration.host import NUM_CLASSES, TinyCnn, TinyHuggingFace, tiny_swin, tiny_vit
from trg_torchdistill.cli.probe.build import build_untrained
from trg_torchdistill.cli.probe.image_size import ImageSize, image_sizes
from trg_torchdistill.cli.probe.layers import alternatives, choose_layer
from trg_torchdistill.cli.probe.layouts import sequence_grid
from trg_torchdistill.cli.probe.probe import run_model
from trg_torchdistill.cli.probe.trial import guess_warning
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.deferred import parse_deferred
from trg_torchdistill.cli.tasks.recognised import CLASSIFICATION
from trg_torchdistill.errors import TRGError
from trg_torchdistill.tokens import Tokenizer

PREFIX = {'num_prefix_tokens': 1}


def probe(model, size=16):
    return run_model(type(model).__name__, model, (size, size))


def config(text, tmp_path):
    return Config(tmp_path / 'x.yaml', text, parse_deferred(text))


@pytest.mark.parametrize(
    ('build', 'size', 'path', 'shape', 'tokens'),
    [
        (models.resnet18, 64, 'layer4', (512, 2, 2), {}),
        (models.resnet18, 32, 'layer3', (256, 2, 2), {}),
        (models.resnet50, 32, 'layer3', (1024, 2, 2), {}),
        (models.mobilenet_v3_small, 64, 'features', (576, 2, 2), {}),
        (models.efficientnet_b0, 64, 'features', (1280, 2, 2), {}),
        (models.convnext_tiny, 64, 'features', (768, 2, 2), {}),
        (models.squeezenet1_1, 64, 'features', (512, 3, 3), {}),
        (models.vgg11, 64, 'features', (512, 2, 2), {}),
        (models.densenet121, 64, 'features', (1024, 2, 2), {}),
        (models.shufflenet_v2_x1_0, 96, 'conv5', (1024, 3, 3), {}),
        (functools.partial(models.googlenet, init_weights=False), 96, 'inception5b', (1024, 3, 3), {}),
        (models.swin_t, 64, 'features', (2, 2, 768), {'layout': 'bhwc'}),
        (functools.partial(models.VisionTransformer, 64, 8, 3, 3, 48, 96), 64, 'encoder.layers', (65, 48), PREFIX),
        (TinyCnn, 16, 'layer4', (8, 4, 4), {}),
        (tiny_vit, 16, 'encoder.layers', (17, 16), PREFIX),
        (tiny_swin, 16, 'features', (4, 4, 16), {'layout': 'bhwc'}),
    ],
)
def test_the_last_map_before_pooling_is_taken_and_every_token_is_in_its_row(build, size, path, shape, tokens):
    torch.manual_seed(0)
    found = probe(build(), size)
    assert [record.path for record in found.records if not record.is_in_order] == []
    chosen = choose_layer(found, 'student')
    assert (chosen.path, chosen.shape[1:], chosen.tokens) == (path, shape, tokens)
    grid = Tokenizer(**chosen.tokens)(torch.zeros(chosen.shape))
    assert grid.shape[1:] == (chosen.width, *chosen.grid)
    others = alternatives(found, chosen)
    assert chosen.path not in {record.path for record in others}
    assert all(record.is_spatial and found.record(record.path) is record for record in others)


def test_of_a_mapping_the_last_map_is_seen_and_its_key_is_written():
    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.early, self.late = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)

        def forward(self, images):
            early = self.early(images)
            return {'aux': None, '0': early, '1': self.late(early)}

    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.last = Backbone(), nn.Identity()

        def forward(self, images):
            return self.last({'feature': self.body(images)['1']})['feature'].mean((2, 3))

    found = probe(Pyramid())
    records = {path: found.record(path) for path in ('body', 'last')}
    assert [(record.tokens, record.shape) for record in records.values()] == [
        ({'key': '1'}, (2, 6, 4, 4)),
        ({}, (2, 6, 4, 4)),
    ]
    assert all(record.is_in_order and not record.is_stage for record in records.values())


def test_channels_last_is_known_by_evidence_and_not_by_shape():
    class Square(nn.Module):
        """A map of 4 x 4 cells and 4 channels, whose shape tells nothing."""

        def __init__(self, last):
            super().__init__()
            self.patches = nn.Conv2d(3, 4, 4, 4)
            self.block = nn.Sequential(nn.Linear(4, 4) if last else nn.Conv2d(4, 4, 1), nn.GELU())
            self.last = last

        def forward(self, images):
            cells = self.patches(images)
            return self.block(cells.permute(0, 2, 3, 1) if self.last else cells).mean((2, 3))

    assert [probe(Square(last)).record('block').layout for last in (True, False)] == ['bhwc', 'bchw']


def test_registers_and_oblong_images_are_counted():
    assert sequence_grid(201, [(14, 14)]) == (5, (14, 14))
    assert sequence_grid(25, [(4, 6)]) == (1, (4, 6))
    assert sequence_grid(49, []) == (0, (7, 7))
    assert sequence_grid(11, [(16, 16)]) == (2, (3, 3))
    assert sequence_grid(3, []) is None


def test_records_tell_what_runs_and_in_which_order():
    model = TinyCnn()
    model.unused = nn.Linear(1, 1)
    model.shared = model.fc
    found = probe(model)
    assert not found.record('unused').runs
    assert found.record('layer4').order > found.record('layer4.1').order > found.record('layer3').order
    assert found.record('layer3.-1').path == 'layer3.2'
    assert found.record('layer3.7') is None
    assert found.record('pool').layout == 'bd'
    assert (found.returned, found.num_logits, found.batch.shape) == ('Tensor', 5, (2, 3, 16, 16))
    assert probe(TinyHuggingFace()).returned == 'SimpleNamespace'


def test_the_model_and_the_random_state_stay_as_they_were():
    model = TinyCnn(dropout=0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    probe(model)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ('path', 'message'),
    [('layer9', 'did you mean `layer'), ('unused', 'did not run'), ('odd', r'returns Tensor \[3\] for a batch of 2')],
)
def test_a_layer_that_cannot_be_hooked_is_refused(path, message):
    class Odd(TinyCnn):
        def __init__(self):
            super().__init__()
            self.unused, self.odd = nn.Identity(), nn.Flatten(0)

        def forward(self, images):
            self.odd(torch.zeros(3))
            return super().forward(images)

    with pytest.raises(TRGError, match=message):
        choose_layer(probe(Odd()), 'student', path)


def test_a_size_that_the_model_refuses_is_told():
    with pytest.raises(TRGError, match=r'`VisionTransformer` refused a batch of shape \[2, 3, 8, 8\]'):
        probe(tiny_vit(), 8)


def untrained(kwargs, tmp_path, num_classes=None):
    text = f"""
        datasets:
          &d data: !import_call {{key: 'no.such.Data'}}
          set: &set !import_call {{key: 'no.such.Data'}}
        models: {{student_model: {{key: 'resnet18', kwargs: {{{kwargs}}}, src_ckpt: 'https://example.org/x.pt'}}}}
        """
    return build_untrained(config(text, tmp_path), ('models', 'student_model'), num_classes)


def test_weights_are_never_asked_for_nor_downloaded(tmp_path):
    kwargs = "num_classes: 7, weights: !getattr [!import_get {key: 'no.such.Weights'}, 'V1']"
    assert untrained(kwargs, tmp_path).fc.out_features == 7
    assert untrained(kwargs, tmp_path, 3).fc.out_features == 3


def test_arguments_by_tags_are_built_but_not_from_the_data(tmp_path):
    kwargs = "num_classes: !getattr [*set, 'num_classes'], norm_layer: !import_get {key: 'torch.nn.BatchNorm2d'}"
    with pytest.raises(TRGError, match=r'without the data sets, .* `--num-classes`'):
        untrained(kwargs, tmp_path)
    assert untrained(kwargs, tmp_path, 4).fc.out_features == 4


@pytest.mark.parametrize(
    ('key', 'transform', 'size'),
    [
        ('CIFAR10', "RandomResizedCrop', init: {kwargs: {size: [192, 160]}}", (192, 160)),
        ('CIFAR10', "RandomCrop', init: {kwargs: {size: 28, padding: 4}}", (28, 28)),
        ('CIFAR10', "v2.CenterCrop', init: {args: [96]}", (96, 96)),
        ('CIFAR10', "Resize', init: {kwargs: {size: 48}}", (48, 48)),
        ('CIFAR10', "ToTensor', init: {}", (32, 32)),
        ('USPS', "ToTensor'", (16, 16)),
        ('KMNIST', "ToTensor'", (28, 28)),
        ('EuroSAT', "ToTensor'", (64, 64)),
        ('FakeData', "ToTensor'", (224, 224)),
        ('ImageFolder', "ToTensor'", None),
    ],
)
def test_the_size_comes_from_the_training_data(tmp_path, key, transform, size):
    other = '' if size is None else "other: !import_call {key: 'x.CenterCrop', init: {kwargs: {size: 7}}}"
    text = f"""
        datasets:
          {other}
          train: !import_call
            key: 'torchvision.datasets.{key}'
            init: {{kwargs: {{transform: [!import_call {{key: 'torchvision.transforms.{transform}}}]}}}}
        models: {{student_model: {{key: 'x', kwargs: {{}}}}}}
        train: {{train_data_loader: {{dataset_id: 'train'}}}}
        """
    first = image_sizes(config(text, tmp_path), ('train',), [])[0]
    assert (first.height, first.width, first.is_guess) == (*(size or (224, 224)), size is None)


def test_without_any_hint_the_usual_sizes_are_tried_the_small_one_first_for_cifar_models(tmp_path):
    from torchdistill.models.classification.resnet import resnet20

    empty = config('models: {student_model: {key: x}}', tmp_path)
    assert [(size.height, size.is_guess) for size in image_sizes(empty, ('train',), [])] == [(224, True), (32, True)]
    assert [size.height for size in image_sizes(empty, ('train',), [resnet20(num_classes=10)])] == [32, 224]
    assert image_sizes(empty, ('train',), [tiny_vit()])[0].height == 16


@pytest.mark.parametrize(
    ('size', 'build', 'text'),
    [
        (ImageSize(64, 64, '', is_guess=True), TinyCnn, '16x16 tokens an image then, 8x8 tokens at 32 x 32 and 56x56'),
        (ImageSize(64, 64, ''), TinyCnn, None),  # not a guess
        (ImageSize(16, 16, '', is_guess=True), tiny_vit, None),  # it takes no other size
    ],
)
def test_a_guess_is_told_where_the_tokens_hang_on_it(size, build, text):
    found = probe(build(), size.height)
    path = choose_layer(found, 'student').path
    warning = guess_warning(CLASSIFICATION, size, [(found, [path]), (found, [])])
    assert warning is None if text is None else text in warning
    assert guess_warning(CLASSIFICATION, size, [(found, [])]) is None


def test_the_logits_are_found_behind_a_feature():
    class Behind(TinyCnn):
        def forward(self, images):
            logits = super().forward(images)
            return torch.cat([logits, logits, logits], 1), logits

    model = Behind(8)
    model.num_classes = NUM_CLASSES
    assert probe(model).num_logits == NUM_CLASSES
