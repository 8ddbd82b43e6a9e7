"""Data sets and models that are not what the trainer expects; YAMLs name them by `odd.`."""

import torch
from PIL import Image
from tiny import NUM_CLASSES, Blobs
from torch import nn
from torch.utils.data import Dataset, RandomSampler
from torchdistill.models.registry import register_model

FORMS = {
    'three values': lambda image, label: (image, label, 0),
    'dict': lambda image, label: {'image': image, 'label': label},
    'one-hot': lambda image, label: (image, nn.functional.one_hot(torch.tensor(label), NUM_CLASSES)),
    'column': lambda image, label: (image, torch.tensor([label])),
    'float': lambda image, label: (image, float(label)),
    'word': lambda image, label: (image, str(label)),
    'negative': lambda image, label: (image, label - 6),
    'beyond': lambda image, label: (image, label + 3),
    'picture': lambda image, label: (Image.new('RGB', (8, 8)), label),
    'bytes': lambda image, label: (image.byte(), label),
    'grey': lambda image, label: (image[:1], label),
    'sizes': lambda image, label: (image[:, label:], label),
    'soft': lambda image, label: (image, torch.full((NUM_CLASSES,), 1 / NUM_CLASSES)),
}


class Odd(Blobs):
    """Items of another form; of those numbered `bad` none is readable."""

    def __init__(self, size, form=None, bad=None, classes=None):
        super().__init__(size, noise=0)
        self.form, self.bad, self.items_read = form, bad, 0
        self.generator = torch.Generator().manual_seed(size)
        if classes is not None:
            self.classes = classes

    def __getitem__(self, index):
        self.items_read += 1
        if index == self.bad:
            raise OSError('image file is truncated')
        image, label = super().__getitem__(index)
        image = image + self.items_read * torch.randn(3, 8, 8, generator=self.generator)
        return (image, label) if self.form is None else FORMS[self.form](image, label)


class Untold(Dataset):
    """Fails when it is asked for one of the things that a data set may tell of itself, or tells it wrong."""

    def __init__(self, size, lacks):
        self.blobs, self.lacks = Blobs(size), lacks

    def __len__(self):
        return len(self._tell('__len__', self.blobs))

    def __getitem__(self, index):
        return self.blobs[index]

    @property
    def targets(self):
        return self._tell('targets', self.blobs.targets[: 2 if self.lacks == 'all targets' else None])

    @property
    def classes(self):
        return NUM_CLASSES if self.lacks == 'classes' else None

    def _tell(self, name, value):
        if name == self.lacks:
            raise RuntimeError(name)
        return value


class FailingSampler(RandomSampler):
    def __iter__(self):
        raise KeyError('a key of its own')


class Failing(nn.Module):
    """A layer that raises in its n-th pass in train mode."""

    def __init__(self, step):
        super().__init__()
        self.steps_left = step

    def forward(self, images):
        if self.training:
            self.steps_left -= 1
        return images if self.steps_left >= 0 else {}['a key of its own']


@register_model
def failing_net(step, num_classes=NUM_CLASSES):
    return nn.Sequential(Failing(step), nn.Flatten(), nn.Linear(192, num_classes))


@register_model
def pooled_net(num_classes=NUM_CLASSES):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3), nn.Linear(3, num_classes))


@register_model
def map_net(num_classes=NUM_CLASSES):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, num_classes, 1))
