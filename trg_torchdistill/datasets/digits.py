"""Handwritten digits that need no download."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from trg_torchdistill._checks import advice, check_choice, check_integer
from trg_torchdistill.errors import TRGError

# which images of each class, in the order of the file
SPLITS = {'train': slice(None, 100), 'val': slice(100, -60), 'test': slice(-60, None)}
BRIGHTEST_PIXEL = 16.0


class Digits(Dataset[tuple[Any, int]]):
    """Handwritten digits: the 1,797 images of 8 x 8 pixels, by 13 writers, that come with scikit-learn (UCI).

    An item is (PIL RGB image of ``size`` x ``size``, or what ``transform`` makes of it; int target). The split is fixed
    and follows the order of the file within each class: the first 100 images are ``train`` (1,000), the last 60 are
    ``test`` (600), those between are ``val`` (197). Images near each other in the file look alike, as the writers
    follow one another, so this split is harder than a random one.

    Args:
        split: ``train``, ``val`` or ``test``.
        transform: Function of the PIL image, or None.
        size: Side of the image in pixels; the original is enlarged bilinearly.

    Attributes:
        targets: Class of each image.
        classes: Names of the ten classes.

    Raises:
        TRGError: If an argument has a wrong type; if an argument is out of range; if scikit-learn is missing.

    YAML::

        datasets:
          digits/train: !import_call
            key: 'trg_torchdistill.datasets.Digits'
            init:
              kwargs: {split: 'train'}
    """

    def __init__(self, split: str, transform: Callable[[Any], Any] | None = None, size: int = 32) -> None:
        with advice("change it under the `kwargs:` of 'trg_torchdistill.datasets.Digits'"):
            check_choice('split', split, tuple(SPLITS))
            check_integer('size', size, 8)
            if transform is not None and not callable(transform):
                raise TRGError(f'expected `transform` to be a function of an image or null, got {transform!r}')
        self.split = split
        self.transform = transform
        self.classes = [str(digit) for digit in range(10)]
        digits = _load_digits()
        of_each_class = [np.flatnonzero(digits.target == label)[SPLITS[split]] for label in range(10)]
        indices = np.sort(np.concatenate(of_each_class))
        self.targets: list[int] = digits.target[indices].tolist()
        self.images = [_to_picture(image, size) for image in digits.images[indices]]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = self.images[index].copy()
        return (image if self.transform is None else self.transform(image)), self.targets[index]


def _load_digits() -> Any:
    """Images [1797, 8, 8] with values from 0 to 16, and their classes as ``target``, in the order of the file."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise TRGError(
            "expected scikit-learn, whose digits 'trg_torchdistill.datasets.Digits' reads, to be installed, got none; "
            "run: pip install 'trg_torchdistill[demo]'"
        ) from error
    return load_digits()


def _to_picture(image: Any, size: int) -> Image.Image:
    gray = Image.fromarray((image * (255 / BRIGHTEST_PIXEL)).round().astype('uint8'))
    return gray.resize((size, size), Image.Resampling.BILINEAR).convert('RGB')
