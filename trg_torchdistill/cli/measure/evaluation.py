"""What models answer to the images of a data loader, and their accuracy: top-1, top-5, per class and per group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from trg_torchdistill.cli.runtime.precision import FLOAT32, Precision
from trg_torchdistill.cli.runtime.processes import ALONE, Processes
from trg_torchdistill.errors import TRGError, explained
from trg_torchdistill.procs import forward_logits_only

GROUPS = ('many', 'medium', 'few')
CONVENTIONS = ('thirds', 'shots')
MANY_SHOT_ABOVE, FEW_SHOT_BELOW = 100, 20


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


@dataclass(frozen=True)
class Predictions:
    """What one or more models answer to the same images.

    Attributes:
        labels: Class of each image [N].
        ranked: For each model, the classes of its five highest logits, or of all when there are fewer, the highest
            first [N, K].
        num_classes: For each model, its number of logits.
        divergence: KL(second model || first model) of the class probabilities of each image [N], in nats; None unless
            there are two models with equally many classes.
    """

    labels: Tensor
    ranked: tuple[Tensor, ...]
    num_classes: tuple[int, ...]
    divergence: Tensor | None = None

    def accuracy(self, model: int = 0) -> Accuracy:
        """Returns the accuracy of the model at a position."""
        hits = self.ranked[model] == self.labels[:, None]
        totals = torch.bincount(self.labels, minlength=self.num_classes[model]).tolist()
        right = torch.bincount(self.labels[hits[:, 0]], minlength=len(totals)).tolist()
        num_images = len(self.labels)
        return Accuracy(
            top1=100 * sum(right) / num_images,
            top5=100 * int(hits.any(1).sum()) / num_images,
            per_class=[100 * hit / total if total else None for hit, total in zip(right, totals, strict=True)],
            num_images=num_images,
        )


def predict(
    models: Sequence[nn.Module],
    loader: Iterable[Any],
    device: torch.device,
    processes: Processes = ALONE,
    precision: Precision = FLOAT32,
) -> Predictions:
    """Puts models in eval mode and asks each of them about all images.

    Args:
        models: Each returns logits [B, C], in one of the forms of ``forward_logits_only``.
        loader: Yields images and labels first; those of this process.
        device: Device of the models.
        processes: Those that evaluate the same weights together; all of them get the predictions of all images.
        precision: Precision of the forward passes; the divergence is computed in float32.

    Returns:
        The predictions, on the CPU, in an order that depends on the processes.

    Raises:
        TRGError: If the loader yields no batch.
    """
    for model in models:
        model.eval()
    own = _answers(models, loader, device, precision)
    parts = [part for part in processes.gathered(own) if part is not None]  # gloo writes into no inference tensor
    if not parts:
        raise TRGError('expected at least one batch to evaluate on, got none; change the data loader of the YAML')
    return _joined(parts)


@torch.inference_mode()
def _answers(
    models: Sequence[nn.Module], loader: Iterable[Any], device: torch.device, precision: Precision
) -> Predictions | None:
    """Returns the predictions for the images of this process, None without a batch."""
    batches = []  # they stay on the device, so that the loop does not wait for it
    for batch in loader:
        images, labels = batch[0].to(device), batch[1].to(device)
        logits = []
        for model in models:
            with explained(f'`{type(model).__name__}` failed in an evaluation'), precision.autocast():
                logits.append(forward_logits_only(model, images))
        batches.append(predictions_of(labels, logits))
    return _joined(batches) if batches else None


def evaluate(
    model: nn.Module,
    loader: Iterable[Any],
    device: torch.device,
    processes: Processes = ALONE,
    precision: Precision = FLOAT32,
) -> Accuracy:
    """Puts a model in eval mode and measures its accuracy; arguments and errors are those of :func:`predict`."""
    return predict([model], loader, device, processes, precision).accuracy()


def class_groups(class_counts: Sequence[int], convention: str = 'thirds') -> dict[str, list[int]]:
    """Returns the many-, medium- and few-shot classes of a long-tailed training set.

    Args:
        class_counts: Number of training images of each class.
        convention: With ``thirds`` the groups are the thirds of the classes, sorted by their number of training images;
            sizes that do not divide by three give the extra classes to the earlier groups. With ``shots`` they are the
            classes with more than 100, with 20 to 100, and with fewer than 20 training images, as for ImageNet-LT (Liu
            et al., "Large-Scale Long-Tailed Recognition in an Open World"); in a small data set one may be empty.

    Example:
        >>> class_groups([5000, 500, 50])
        {'many': [0], 'medium': [1], 'few': [2]}
        >>> class_groups([5000, 500, 50], 'shots')
        {'many': [0, 1], 'medium': [2], 'few': []}
    """
    order = sorted(range(len(class_counts)), key=lambda label: -class_counts[label])
    if convention == 'shots':
        num_many = sum(count > MANY_SHOT_ABOVE for count in class_counts)
        ends = [num_many, sum(count >= FEW_SHOT_BELOW for count in class_counts)]
    else:
        ends = [(len(order) + 2) // 3, (len(order) + 2) // 3 + (len(order) + 1) // 3]
    return dict(zip(GROUPS, (order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] :]), strict=True))


def group_accuracy(
    per_class: Sequence[float | None], class_counts: Sequence[int], convention: str = 'thirds'
) -> dict[str, float | None]:
    """Returns the mean accuracy of the many-, medium- and few-shot classes of a long-tailed training set.

    Classes without test images do not count.

    Args:
        per_class: Accuracy of each class, None where there is no test image.
        class_counts: Number of training images of each class.
        convention: What the groups are, see :func:`class_groups`.

    Returns:
        The mean over the classes of ``many``, ``medium`` and ``few``, None for a group without test images.

    Example:
        >>> group_accuracy([90.0, 60.0, 30.0], [5000, 500, 50])
        {'many': 90.0, 'medium': 60.0, 'few': 30.0}
    """
    means: dict[str, float | None] = {}
    for group, labels in class_groups(class_counts, convention).items():
        values = [value for label in labels if (value := per_class[label]) is not None]
        means[group] = sum(values) / len(values) if values else None
    return means


def unbalanced_counts(dataset: Any) -> list[int] | None:
    """Returns ``class_counts`` of a training set whose classes differ in size, None for any other data set."""
    counts = getattr(dataset, 'class_counts', None)
    if counts is None or len(set(counts)) < 2:
        return None
    return [int(count) for count in counts]


def predictions_of(labels: Tensor, logits: Sequence[Tensor]) -> Predictions:
    """Returns the predictions for images with labels [N] for which models gave logits [N, C]."""
    num_classes = tuple(each.shape[1] for each in logits)
    ranked = tuple(each.topk(min(5, each.shape[1]), dim=1).indices for each in logits)
    divergence = None
    if len(logits) == 2 and num_classes[0] == num_classes[1]:
        first, second = (log_softmax(each.float(), dim=1) for each in logits)
        divergence = kl_div(first, second, reduction='none', log_target=True).sum(1)
    return Predictions(labels, ranked, num_classes, divergence)


def _joined(parts: Sequence[Predictions]) -> Predictions:
    """Returns the predictions of all parts, which are of the same models, on the CPU."""
    divergences = [part.divergence for part in parts if part.divergence is not None]
    return Predictions(
        torch.cat([part.labels for part in parts]).cpu(),
        tuple(torch.cat(each).cpu() for each in zip(*(part.ranked for part in parts), strict=True)),
        parts[0].num_classes,
        torch.cat(divergences).cpu() if divergences else None,
    )
