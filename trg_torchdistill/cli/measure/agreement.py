"""Where two models answer alike, and which classes a model takes for which."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import torch

from trg_torchdistill.cli.measure.evaluation import Predictions


@dataclass(frozen=True)
class Agreement:
    """How often a student and its teacher choose the same class, and who is right.

    The five numbers of images add up to all of them. Teacher and student agree on ``both_right`` and
    ``both_wrong_same``, and disagree on the other three.

    Attributes:
        both_right: Images that both models put into their class.
        both_wrong_same: Images that both put into the same wrong class.
        only_teacher_right: Images that only the teacher puts into their class.
        only_student_right: Images that only the student puts into their class.
        both_wrong_differently: Images that both put into wrong classes, but not the same one.
        per_class: For each class, the part in percent of its images on which they agree; None without images.
        divergence: Mean over the images of KL(teacher || student) = sum_c p_c log(p_c / q_c) in nats, where p and q are
            the softmax at temperature 1 of the teacher's and the student's logits; None if they do not have equally
            many classes, or if it is not finite.
    """

    both_right: int
    both_wrong_same: int
    only_teacher_right: int
    only_student_right: int
    both_wrong_differently: int
    per_class: list[float | None]
    divergence: float | None

    @property
    def num_images(self) -> int:
        """Number of images."""
        return self.both_right + self.both_wrong_same + self.num_disagreements

    @property
    def num_disagreements(self) -> int:
        """Number of images on which they choose different classes."""
        return self.only_teacher_right + self.only_student_right + self.both_wrong_differently

    @property
    def share(self) -> float:
        """Part of the images, in percent, on which they choose the same class."""
        return 100 * (self.both_right + self.both_wrong_same) / self.num_images

    def as_dict(self) -> dict[str, Any]:
        """Returns the values as they are written to a file: ``top1`` is the share."""
        return {'top1': self.share, 'n': self.num_images, **asdict(self)}


@dataclass(frozen=True)
class Confusion:
    """The number of images of one class, ``true``, that a model takes for another, ``predicted``."""

    true: int
    predicted: int
    count: int


def agreement(predictions: Predictions) -> Agreement:
    """Returns how far the first model, the student, agrees with the second one, the teacher."""
    labels, (student, teacher) = predictions.labels, (ranked[:, 0] for ranked in predictions.ranked)
    same, student_right, teacher_right = student == teacher, student == labels, teacher == labels
    both_wrong = ~student_right & ~teacher_right
    totals = torch.bincount(labels, minlength=max(predictions.num_classes)).tolist()
    alike = torch.bincount(labels[same], minlength=len(totals)).tolist()
    mean = math.nan if predictions.divergence is None else predictions.divergence.double().mean().item()
    return Agreement(
        both_right=int((student_right & teacher_right).sum()),
        both_wrong_same=int((both_wrong & same).sum()),
        only_teacher_right=int((teacher_right & ~student_right).sum()),
        only_student_right=int((student_right & ~teacher_right).sum()),
        both_wrong_differently=int((both_wrong & ~same).sum()),
        per_class=[100 * part / total if total else None for part, total in zip(alike, totals, strict=True)],
        divergence=mean if math.isfinite(mean) else None,
    )


def confusions(predictions: Predictions) -> list[Confusion]:
    """Returns each pair of classes that the first model, the student, confuses, the most frequent pairs first."""
    pairs = zip(predictions.labels.tolist(), predictions.ranked[0][:, 0].tolist(), strict=True)
    counts = Counter((true, predicted) for true, predicted in pairs if true != predicted)
    found = [Confusion(true, predicted, count) for (true, predicted), count in counts.items()]
    return sorted(found, key=lambda each: (-each.count, each.true, each.predicted))
