"""Images in memory, a whole batch at a time, for trainings on a GPU, which a loader of files would keep waiting.

``decode`` reads an ImageFolder tree once into arrays; :class:`StoredImages` is the data set of such a file, and
:class:`Batches` augments and normalises batches of it, as torchvision's ``RandomCrop``, ``RandomHorizontalFlip``,
``ToTensor`` and ``Normalize`` do image by image.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import BatchSampler, Dataset, RandomSampler, SequentialSampler
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor


def decode(folder: Path) -> Path:
    """Decodes the images of an ImageFolder tree into ``folder``.pt beside it, unless that is there.

    Returns:
        The file: {images: uint8 [N, 3, H, W], targets: [N], classes: names}.
    """
    file = folder.with_name(f'{folder.name}.pt')
    if not file.exists():
        source = ImageFolder(str(folder))
        with ThreadPoolExecutor() as pool:
            images = list(pool.map(lambda item: pil_to_tensor(source.loader(item[0])), source.samples))
        partial = file.with_suffix('.tmp')
        stored = {'images': torch.stack(images), 'targets': torch.tensor(source.targets), 'classes': source.classes}
        torch.save(stored, partial)
        partial.rename(file)
    return file


class StoredImages(Dataset[Any]):
    """The images of a file of :func:`decode`.

    Args:
        file: The file.

    Attributes:
        targets: Class of each image.
        classes: Names of the classes.
    """

    def __init__(self, file: str) -> None:
        stored = torch.load(file, weights_only=True, mmap=True)
        self.images: Tensor = stored['images']
        self.targets: list[int] = stored['targets'].tolist()
        self.classes: list[str] = stored['classes']

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], self.targets[index]


class Batches(Dataset[Any]):
    """Batches of the images of a data set, all of which are held on a device.

    Args:
        dataset: Gives (uint8 image [3, H, W], label), and has ``targets``.
        mean: Of each channel.
        std: Of each channel.
        padding: Black pixels around an image, of which an H x W part is cut at random and mirrored at random; None for
            images as they are.
        device: Where the images are.

    Attributes:
        targets: Class of each image.
        class_counts: Images of each class, for a data set that tells them.
    """

    def __init__(
        self, dataset: Any, mean: Sequence[float], std: Sequence[float], padding: int | None = None, device: str = 'cpu'
    ) -> None:
        images = torch.stack([dataset[index][0] for index in range(len(dataset))])
        self.targets = list(dataset.targets)
        self.classes = dataset.classes
        self.class_counts = getattr(dataset, 'class_counts', None)
        self.size, self.padding = tuple(images.shape[2:]), padding
        self.images = functional.pad(images, [padding or 0] * 4).to(device)
        self.labels = torch.tensor(self.targets, device=device)
        self.mean, self.std = (torch.tensor(each, device=device)[:, None, None] for each in (mean, std))

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        index = torch.tensor(indices)
        labels, images = self.labels[index.to(self.labels.device)], self._crops(index)
        return (images.float().div_(255) - self.mean) / self.std, labels

    def _crops(self, index: Tensor) -> Tensor:
        """The images, cut and mirrored at random; the draws are those of the CPU's generator."""
        if self.padding is None:
            return self.images[index.to(self.images.device)]
        top, left = torch.randint(2 * self.padding + 1, (2, len(index)))
        mirrored = torch.rand(len(index)) < 0.5
        index, top, left, mirrored = (part.to(self.images.device) for part in (index, top, left, mirrored))
        height, width = self.size
        crops = self.images.unfold(2, height, 1).unfold(3, width, 1)[index, :, top, left]
        return torch.where(mirrored[:, None, None, None], crops.flip(3), crops)


def shuffled(dataset: Any, batch_size: int) -> BatchSampler:
    """A `sampler:` of batches in random order, without the incomplete last one; the loader's `batch_size:` is null."""
    return BatchSampler(RandomSampler(dataset), batch_size, drop_last=True)


def in_order(dataset: Any, batch_size: int) -> BatchSampler:
    """A `sampler:` of batches in order, all of them."""
    return BatchSampler(SequentialSampler(dataset), batch_size, drop_last=False)
