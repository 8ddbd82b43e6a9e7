"""What students are worth beside the accuracy of their best epoch, for ``lasting.py measure``.

On test/, of the last epoch and of the best one on val/, in float32: top-1, that of many-, medium- and few-shot classes,
the expected calibration error in 15 bins, and how far the student agrees with the teacher, as ``eval`` says it.

Of the features before the last layer, at the last epoch: the accuracy of 20 neighbours (cosine) and of logistic
regression (each feature scaled) on images the student was not trained on. ``digits`` are handwritten ones, learned from
1,000 and tested on 600; ``unseen`` are the classes left out of a setting, learned from val/ and tested on test/.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from arrays import StoredImages, decode
from config import MEAN, SETTINGS, STD
from recipes import Recipe
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torchdistill.models.registry import get_model
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

from trg_torchdistill.cli.measure.agreement import agreement
from trg_torchdistill.cli.measure.evaluation import group_accuracy, predictions_of, unbalanced_counts
from trg_torchdistill.cli.plot.models import Model, penultimate_features
from trg_torchdistill.cli.train.checkpoint import load_training_state
from trg_torchdistill.datasets import Digits, LongTailed

NUM_BINS, NUM_NEIGHBORS, BATCH_SIZE = 15, 20, 500
Labelled = tuple[Tensor, Tensor]


class Measures:
    """Measures the models of one setting.

    Args:
        setting: Key of ``SETTINGS``.
        recipe: Of its models.
        teacher: Weights of the teacher.
        options: ``data`` and ``out`` of the command line, and ``device``.
    """

    def __init__(self, setting: str, recipe: Recipe, teacher: Path, options: argparse.Namespace) -> None:
        self.recipe, self.teacher, self.device = recipe, teacher, torch.device(options.device)
        subset = dict(SETTINGS[setting] or {})
        self.seen = subset.pop('classes', recipe.pair.classes)
        self.images, self.labels = _of_classes(_stored(options.data / 'test'), lambda label: label < self.seen)
        self.counts = None
        if subset.get('imbalance', 1) > 1:
            self.counts = unbalanced_counts(LongTailed(ImageFolder(str(options.data / 'train')), **subset))
        self.tasks = {'digits': (_digits('train'), _digits('test'))}
        if self.seen < recipe.pair.classes:
            learned, tested = (_of_classes(_stored(options.data / split), self._is_unseen) for split in ('val', 'test'))
            self.tasks['unseen'] = (learned, tested)
        self.said = self._of_the_teacher(options.out)

    def of_run(self, folder: Path) -> dict[str, Any]:
        """Measures the student of a run."""
        network = self.recipe.pair.student.key
        last = load_training_state(folder / 'last.pt')['modules']['student']
        best = torch.load(folder / 'best.pt', map_location='cpu', weights_only=True)['model']
        found, worth = self._of_model(network, last)
        is_last = all(torch.equal(value, last[name]) for name, value in best.items())
        return {'last': found, 'best': found if is_last else self._of_model(network, best)[0], 'features': worth()}

    def of_teacher(self) -> dict[str, Any]:
        """Measures the teacher."""
        weights = torch.load(self.teacher, map_location='cpu', weights_only=True)['model']
        found, worth = self._of_model(self.recipe.pair.teacher.key, weights)
        return {'last': found, 'features': worth()}

    def _of_model(self, network: str, weights: dict[str, Tensor]) -> tuple[dict[str, Any], Callable[[], Any]]:
        """What a model says of test/, and, when asked, what its features are worth."""
        model = self._model(network, weights)
        return self._on_test(self._answers(model)), lambda: self._worth(network, model)

    def _is_unseen(self, label: Tensor) -> Tensor:
        return label >= self.seen

    def _model(self, network: str, weights: dict[str, Tensor]) -> nn.Module:
        model: nn.Module = get_model(network, num_classes=self.recipe.pair.classes)
        model.load_state_dict(weights)
        return model.to(self.device).eval()

    def _of_the_teacher(self, out: Path) -> Tensor:
        """The teacher's logits on test/, asked once."""
        name = hashlib.sha256(self.teacher.read_bytes()).hexdigest()[:16]
        file = out / f'logits-{name}-{self.seen}.pt'
        if not file.exists():
            weights = torch.load(self.teacher, map_location='cpu', weights_only=True)['model']
            torch.save(self._answers(self._model(self.recipe.pair.teacher.key, weights)), file)
        logits: Tensor = torch.load(file, weights_only=True)
        return logits

    @torch.inference_mode()
    def _answers(self, model: nn.Module) -> Tensor:
        batches = self.images.split(BATCH_SIZE)
        return torch.cat([model(_normalized(batch).to(self.device)).float().cpu() for batch in batches])

    def _on_test(self, logits: Tensor) -> dict[str, Any]:
        predictions = predictions_of(self.labels, [logits, self.said])
        accuracy, alike = predictions.accuracy(), agreement(predictions)
        groups = {} if self.counts is None else {'groups': group_accuracy(accuracy.per_class, self.counts)}
        ece = calibration_error(logits.softmax(1), self.labels)
        found = {'top1': accuracy.top1, 'ece': ece, 'agreement': alike.share, 'divergence': alike.divergence}
        return {name: None if value is None else round(value, 4) for name, value in found.items()} | groups

    def _worth(self, network: str, model: nn.Module) -> dict[str, dict[str, float]]:
        def featured(images: Tensor, labels: Tensor) -> Labelled:
            return penultimate_features(Model('', network, model), _normalized(images), self.device), labels

        return {task: probe(*(featured(*part) for part in parts)) for task, parts in self.tasks.items()}


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """The expected calibration error in percent: bins of equal width over the probability of the chosen class.

    Args:
        probabilities: [N, C].
        labels: [N].

    Returns:
        The mean over the images of |accuracy - mean probability| of the bin of each.
    """
    confidence, chosen = probabilities.double().max(1)
    bins = (confidence * NUM_BINS).ceil().long().clamp(1, NUM_BINS) - 1
    gaps = torch.bincount(bins, (chosen == labels).double() - confidence, NUM_BINS)
    return 100 * float(gaps.abs().sum()) / len(labels)


def probe(learned: Labelled, tested: Labelled) -> dict[str, float]:
    """Accuracy in percent of two simple classifiers on features [N, D] with labels [N]."""
    classifiers = {
        'knn': KNeighborsClassifier(min(NUM_NEIGHBORS, len(learned[1])), metric='cosine'),
        'linear': make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    }
    (features, labels), (asked, answers) = ([part.numpy() for part in each] for each in (learned, tested))
    return {
        name: round(100 * each.fit(features, labels).score(asked, answers), 2) for name, each in classifiers.items()
    }


def _stored(folder: Path) -> Labelled:
    images = StoredImages(str(decode(folder)))
    return images.images, torch.tensor(images.targets)


def _digits(split: str) -> Labelled:
    digits = Digits(split, pil_to_tensor)
    return torch.stack([image for image, _ in digits]), torch.tensor(digits.targets)


def _of_classes(images: Labelled, wanted: Callable[[Tensor], Any]) -> Labelled:
    chosen = wanted(images[1])
    return images[0][chosen], images[1][chosen]


def _normalized(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(each)[:, None, None] for each in (MEAN, STD))
    return (images.float() / 255 - mean) / std
