"""ImageNet-LT: images of ImageNet that a public list selects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from trg_torchdistill._checks import advice, check_integer, check_text
from trg_torchdistill.errors import TRGError

OWNER = "'trg_torchdistill.datasets.ImageNetLT'"


class ImageNetLT(Dataset[Any]):
    """Images of ImageNet named in a list with one line an image, ``train/n01440764/n01440764_190.JPEG 0``.

    The lists ``ImageNet_LT_train.txt`` (about 115,800 images, from 1,280 a class to 5), ``ImageNet_LT_val.txt`` and
    ``ImageNet_LT_test.txt`` are those of Liu et al., "Large-Scale Long-Tailed Recognition in an Open World"
    (https://github.com/zhmiao/OpenLongTailRecognition-OLTR). The list of ``test`` names images of ImageNet's validation
    set in folders of their classes: ``val/n01440764/ILSVRC2012_val_00009111.JPEG 0``.

    An item is (PIL RGB image, or what ``transform`` makes of it; int target). All files are looked for at the start.

    Args:
        root: Folder of ImageNet, which holds the ``train`` and ``val`` that the list begins its paths with.
        list_file: The list.
        transform: Function of the PIL image, or None.
        num_classes: Number of classes.

    Attributes:
        targets: Class of each image.
        classes: Name of the folder of each class.
        class_counts: Images of each class.
        paths: File of each image.

    Raises:
        TRGError: If an argument has a wrong type; if a line is not a path and a label from 0 to ``num_classes`` - 1,
            gives a folder a second label or a class a second folder, or a class has no image; if the list or a file in
            it does not exist.

    YAML::

        datasets:
          imagenet_lt/train: !import_call
            key: 'trg_torchdistill.datasets.ImageNetLT'
            init:
              kwargs:
                root: './resource/dataset/ilsvrc2012'
                list_file: './resource/dataset/imagenet_lt/ImageNet_LT_train.txt'
    """

    def __init__(
        self,
        root: str,
        list_file: str,
        transform: Callable[[Any], Any] | None = None,
        num_classes: int = 1000,
    ) -> None:
        with advice(f'change it under the `kwargs:` of {OWNER}'):
            check_text('root', root)
            check_text('list_file', list_file)
            check_integer('num_classes', num_classes, 1)
            if transform is not None and not callable(transform):
                raise TRGError(f'expected `transform` to be a function of an image or null, got {transform!r}')
        self.transform = transform
        listed = Path(list_file).expanduser()
        if not listed.is_file():
            raise TRGError(
                f'expected `list_file` to be a list of images, got {list_file}, which does not exist; download it or '
                f'change the path under the `kwargs:` of {OWNER}'
            )
        self.paths: list[str] = []
        self.targets: list[int] = []
        folders: dict[int, str] = {}
        labels: dict[str, int] = {}
        for number, line in enumerate(listed.read_text(encoding='utf-8').splitlines(), start=1):
            if not line.strip():
                continue
            name, label = _entry(line, num_classes, f'{list_file}, line {number}')
            folder = Path(name).parent.name
            known = (folder, labels.setdefault(folder, label)), (folders.setdefault(label, folder), label)
            for pair in known:
                if pair != (folder, label):
                    raise TRGError(
                        f'expected folder {pair[0]} to go with label {pair[1]}, as in the lines before, got '
                        f'{line.strip()!r} in {list_file}, line {number}; download the list again'
                    )
            path = Path(root).expanduser() / name
            if not path.is_file():
                raise TRGError(
                    f'expected the image {path} of {list_file}, line {number}, to exist; unpack ImageNet there or '
                    f'change `root:` under the `kwargs:` of {OWNER}'
                )
            self.paths.append(str(path))
            self.targets.append(label)
        counts = Counter(self.targets)
        self.class_counts = [counts[label] for label in range(num_classes)]
        if 0 in self.class_counts:
            raise TRGError(
                f'expected {list_file} to list images of {num_classes} classes, got none of class '
                f'{self.class_counts.index(0)}; change `num_classes:` or `list_file:` under the `kwargs:` of {OWNER}'
            )
        self.classes = [folders[label] for label in range(num_classes)]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        with Image.open(self.paths[index]) as file:
            image = file.convert('RGB')
        return (image if self.transform is None else self.transform(image)), self.targets[index]


def _entry(line: str, num_classes: int, where: str) -> tuple[str, int]:
    """The path and the label of a line."""
    name, _, label = line.strip().rpartition(' ')
    if not name or not label.isdecimal() or int(label) >= num_classes:
        raise TRGError(
            f"expected 'FILE LABEL' with a label from 0 to {num_classes - 1}, got {line.strip()!r} in {where}; "
            f'download the list again or change `num_classes:` under the `kwargs:` of {OWNER}'
        )
    return name.strip(), int(label)
