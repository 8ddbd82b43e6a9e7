"""The accuracy of a text classification, for ``metrics:`` of a YAML; ``evaluate.load`` would download it."""

from torch import Tensor


class Accuracy:
    """The share of correct predictions, with the methods of a metric of evaluate."""

    def __init__(self) -> None:
        self.correct = self.count = 0

    def add_batch(self, predictions: Tensor, references: Tensor) -> None:
        """Counts a batch."""
        self.correct += int((predictions == references).sum())
        self.count += len(references)

    def compute(self) -> dict[str, float]:
        """Returns the accuracy of what was added since the last call."""
        accuracy, self.correct, self.count = self.correct / self.count, 0, 0
        return {'accuracy': accuracy}
