"""Accuracy of a model on a data loader: top-1, top-5, per class, and per group of classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from trg_torchdistill.cli.precision import FLOAT32, Precision
from trg_torchdistill.cli.processes import ALONE, Processes
from trg_torchdistill.procs import forward_logits_only

GROUPS = ('many', 'medium', 'few')


@dataclass(frozen=True)
class Accuracy:
    """Accuracies in percent.

    Attributes:
        top1: Images whose label scores highest.
        top5: Images whose label is among the five highest, or among all classes when there are fewer.
        per_class: For each class, the part of its images whose label scores highest; None without images.
        num_images: Number of images.
    """

    top1: float
    top5: float
    per_class: list[float | None]
    num_images: int

    def as_dict(self) -> dict[str, Any]:
        """Returns the values as they are written to ``test.json``."""
        return {'top1': self.top1, 'top5': self.top5, 'per_class': self.per_class, 'n': self.num_images}


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: Iterable[Any],
    device: torch.device,
    processes: Processes = ALONE,
    precision: Precision = FLOAT32,
) -> Accuracy:
    """Puts a model in eval mode and measures its accuracy.

    Args:
        model: Returns logits [B, C], in one of the forms of ``forward_logits_only``.
        loader: Yields images and labels first; those of this process.
        device: Device of the model.
        processes: Those that evaluate the same weights together; all of them get the accuracy on all images.
        precision: Precision of the forward passes.

    Raises:
        ValueError: If the loader yields no batch.
    """
    model.eval()
    hits = []
    for batch in loader:
        with precision.autocast():
            logits = forward_logits_only(model, batch[0].to(device))
        hits.append(_Hits(logits, batch[1].to(device)))
    counts = processes.gathered(_count(hits))
    right, totals, right_of_five = (_sum([part[position] for part in counts]) for position in range(3))
    num_images = sum(totals)
    if num_images == 0:
        raise ValueError('expected at least one batch to evaluate on, got none; change the data loader of the YAML')
    return Accuracy(
        top1=100 * sum(right) / num_images,
        top5=100 * sum(right_of_five) / num_images,
        per_class=[100 * hit / total if total else None for hit, total in zip(right, totals, strict=True)],
        num_images=num_images,
    )


def group_accuracy(per_class: Sequence[float | None], class_counts: Sequence[int]) -> dict[str, float | None]:
    """Returns the mean accuracy of the many-, medium- and few-shot classes of a long-tailed training set.

    The groups are the thirds of the classes, sorted by their number of training images; sizes that do not divide by
    three give the extra classes to the earlier groups. (ImageNet-LT's groups, more than 100 images and fewer than 20,
    would leave a group of a smaller data set empty.) Classes without test images do not count.

    Args:
        per_class: Accuracy of each class, None where there is no test image.
        class_counts: Number of training images of each class.

    Returns:
        The mean over the classes of ``many``, ``medium`` and ``few``, None for a group without test images.

    Example:
        >>> group_accuracy([90.0, 60.0, 30.0], [5000, 500, 50])
        {'many': 90.0, 'medium': 60.0, 'few': 30.0}
    """
    order = sorted(range(len(class_counts)), key=lambda label: -class_counts[label])
    means: dict[str, float | None] = {}
    for position, group in enumerate(GROUPS):
        size = (len(order) + 2 - position) // 3
        start = sum((len(order) + 2 - earlier) // 3 for earlier in range(position))
        values = [value for label in order[start : start + size] if (value := per_class[label]) is not None]
        means[group] = sum(values) / len(values) if values else None
    return means


def unbalanced_counts(dataset: Any) -> list[int] | None:
    """Returns ``class_counts`` of a training set whose classes differ in size, None for any other data set."""
    counts = getattr(dataset, 'class_counts', None)
    if counts is None or len(set(counts)) < 2:
        return None
    return [int(count) for count in counts]


class _Hits:
    """Which images of one batch are right; kept on the device, so that the loop does not wait for it."""

    def __init__(self, logits: Tensor, labels: Tensor) -> None:
        self.labels = labels
        self.num_classes = logits.shape[1]
        best = logits.topk(min(5, self.num_classes), dim=1).indices == labels[:, None]
        self.first, self.among_five = best[:, 0], best.any(1)


def _count(hits: list[_Hits]) -> tuple[list[int], list[int], list[int]]:
    """Returns, for each class, the images whose label scores highest, all images, and those right among five."""
    if not hits:
        return [], [], []
    num_classes = max(hit.num_classes for hit in hits)
    labels = torch.cat([hit.labels for hit in hits])
    totals = torch.bincount(labels, minlength=num_classes).tolist()
    chosen = (torch.cat([hit.first for hit in hits]), torch.cat([hit.among_five for hit in hits]))
    right, right_of_five = (torch.bincount(labels[each], minlength=len(totals)).tolist() for each in chosen)
    return right, totals, right_of_five


def _sum(counts: list[list[int]]) -> list[int]:
    """Adds lists that end at different classes."""
    return [sum(column) for column in zip_longest(*counts, fillvalue=0)]
