"""Runs the first step of the host's own box and looks at what each term weighs in the student's gradient."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from trg_torchdistill.cli.probe.forward import forward_loss, outputs_explained
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.tasks.task import Task
from trg_torchdistill.errors import TRGError, explained
from trg_torchdistill.host import Box, relation_losses, terms_of
from trg_torchdistill.losses.facts import Facts

# Of the other terms' gradient, with a new student: after a tenth of a training this is 0.3 (docs/lasting.md#weights).
START_RATIO = 1.2
START_RATIO_OF_LONG_TAILS = 0.3


@dataclass(frozen=True)
class Term:
    """One term of the total loss in the first step; the terms inside TRG's losses are named ``TERM.local`` and so on.

    Attributes:
        name: Name in the YAML.
        weight: What it is multiplied with.
        value: Its value before the weight.
        gradient_norm: Norm of the gradient of weight * term on the student's parameters, or on all that is trained in a
            stage that leaves the student alone.
        share: That, divided by the sum over all terms; None if nothing is trained.
    """

    name: str
    weight: float
    value: float
    gradient_norm: float
    share: float | None = None

    @property
    def weighted(self) -> float:
        """What the term adds to the loss."""
        return self.weight * self.value


@dataclass(frozen=True)
class Pull:
    """How hard a loss on token graphs pulls at the student.

    Attributes:
        term: Its name in the YAML.
        ratio: Norm of its gradient divided by that of the other terms, sums of the norms of several.
        weights: By keyword, those at which that is ``wanted``, of which each of its terms has an equal part.
        wanted: The ratio to begin with, of several such losses a part for each.
    """

    term: str
    ratio: float
    weights: dict[str, float]
    wanted: float


@dataclass(frozen=True)
class FirstStep:
    """What the first step of a stage shows.

    Attributes:
        loss: The total loss.
        terms: Its terms.
        pulls: How hard each loss on token graphs pulls, where there are other terms.
        unreached: Parameters of the student that are to be trained and get no gradient.
        facts: What each TRG term has to say of its tokens.
        frozen: By TRG term, the student's layer it reads, where neither that nor anything before it is trained.
    """

    loss: float
    terms: tuple[Term, ...]
    pulls: tuple[Pull, ...]
    unreached: tuple[str, ...]
    facts: tuple[Facts, ...]
    frozen: dict[str, str]


def batches_of(task: Task, box: Box, count: int) -> list[Any]:
    """Returns the first batches of an epoch, as the box's ``forward_process`` takes them, on the box's device.

    Raises:
        TRGError: If the loader fails or gives no batch.
    """
    with explained('the training loader failed'):
        found = [task.step(batch, box.device) for batch in itertools.islice(box.train_data_loader, count)]
    if not found:
        raise TRGError(
            'expected the training loader to give at least one batch, got none; lower `batch_size:` or set '
            '`drop_last: False` in `train_data_loader`'
        )
    return found


def first_step(
    config: Config,
    box: Box,
    student: nn.Module,
    batch: Any,
    batch_size: int,
    returns_logits: bool = True,
    start_ratio: float = START_RATIO,
) -> FirstStep:
    """Runs the first training step and looks at its terms.

    Args:
        config: The YAML.
        box: The host's box after its pre-epoch process.
        student: The plain student, on whose parameters gradients are measured.
        batch: Items, labels and supplementary values.
        batch_size: The YAML's.
        returns_logits: Whether a failure may be that a model returns something else.
        start_ratio: How hard the losses on token graphs are to pull at a new student.

    Raises:
        TRGError: If the step fails.
    """
    failed = explained('the first training step failed')
    logits = outputs_explained(config, box, batch) if returns_logits else contextlib.nullcontext()
    with failed, Witness(box.criterion) as witness, logits:
        loss = forward_loss(box, *batch)
    with explained('the gradient of the first training step failed'):
        named = {name: value for name, value in box.student.named_parameters() if value.requires_grad}
        parameters = list(named.values())
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) if named else ()
        unreached = {name for name, gradient in zip(named, gradients, strict=True) if gradient is None}
        wanted = [value for value in student.parameters() if value.requires_grad]
        if named.keys() <= unreached:  # the stage trains something else, such as a part of the teacher
            unreached = set()
            wanted = [value for value in box.trained if value.requires_grad]
        terms = _with_shares(witness.terms(), wanted)
    _check_finite(loss, terms)
    with explained('measuring the tokens failed'):
        facts, frozen = witness.facts(batch_size), witness.frozen()
    value = loss.item()
    with explained('the first training step failed'):
        box.post_forward_process(loss=loss)
    pulls = tuple(witness.pulls(terms, start_ratio))
    return FirstStep(value, tuple(terms), pulls, tuple(name for name in named if name in unreached), facts, frozen)


class Witness:
    """Hooks on the terms of a total loss that keep their values, with graph, and TRG's inputs, inside a ``with`` block.

    Args:
        criterion: The host's ``WeightedSumLoss``.
    """

    def __init__(self, criterion: Any) -> None:
        self._terms = {str(name): term for name, term in terms_of(criterion).items()}
        self._relations = {str(name): loss for name, loss in relation_losses(criterion).items()}
        self._values: dict[str, Any] = {}
        self._inputs: dict[str, tuple[Any, ...]] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> Witness:
        for name, (term, _) in self._terms.items():
            self._handles.append(term.register_forward_hook(self._keep(name)))
        for name, relation in self._relations.items():
            self._handles.append(relation.register_forward_pre_hook(self._keep_input(name)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _keep(self, name: str) -> Any:
        def note(module: nn.Module, args: Any, output: Any) -> None:
            self._values[name] = output

        return note

    def _keep_input(self, name: str) -> Any:
        def note(module: nn.Module, args: Any) -> None:
            self._inputs[name] = args

        return note

    def terms(self) -> list[tuple[str, float, Any]]:
        """Returns (name, weight, value) of each term; a loss of ours with several terms is split into them."""
        found = []
        for name, (_, weight) in self._terms.items():
            parts = self._relations[name].terms() if name in self._relations else {}
            if len(parts) > 1:
                found += [(f'{name}.{part}', weight * own, value) for part, (own, value) in parts.items()]
            elif name in self._values:
                found.append((name, weight, self._values[name]))
        return found

    def pulls(self, terms: Iterable[Term], wanted: float) -> Iterator[Pull]:
        """Yields how hard each loss on token graphs pulls, without those that do not; for maps no ratio is known."""
        parts: dict[str, dict[str, Term]] = {name: {} for name in self._relations}
        others = 0.0
        for term in terms:
            name, _, part = (term.name, '', '') if term.name in self._terms else term.name.rpartition('.')
            if name not in parts:
                others += term.gradient_norm
            elif term.gradient_norm > 0:
                parts[name][f'{part}_weight' if part else 'weight'] = term
        pulling = {name: own for name, own in parts.items() if own and self._relations[name].maps is None}
        for name, own in pulling.items() if others > 0 else ():
            each = wanted / len(pulling)
            norm = each * others / len(own)
            weights = {keyword: term.weight * norm / term.gradient_norm for keyword, term in own.items()}
            if 'weight' not in weights:  # those of the parts stand beside that of the whole
                weights = {keyword: weight / self._terms[name][1] for keyword, weight in weights.items()}
            yield Pull(name, sum(term.gradient_norm for term in own.values()) / others, weights, each)

    def facts(self, batch_size: int) -> tuple[Facts, ...]:
        """Returns what each TRG term has to say of its tokens here, and with the YAML's ``batch_size``."""
        found = []
        for name, loss in self._relations.items():
            student, teacher, *targets = self._inputs[name]
            found.append(loss.facts(name, student, teacher, batch_size, *targets))
        return tuple(found)

    def frozen(self) -> dict[str, str]:
        """Returns the student's layer of each TRG term to which no gradient can come, by the name of the term."""
        found = {}
        for name, (student, *_) in self._inputs.items():
            if not self._relations[name].feature('student', student).requires_grad:
                found[name] = self._relations[name].student_module_path
        return found


def gradients_of(weight: float, value: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Returns the gradient of weight * term on each parameter, zeros where the term does not reach it."""
    return torch.autograd.grad(weight * value, parameters, retain_graph=True, materialize_grads=True)


def _with_shares(terms: Sequence[tuple[str, float, Any]], parameters: Sequence[Tensor]) -> list[Term]:
    found = []
    for name, weight, value in terms:
        norm = 0.0
        if isinstance(value, Tensor) and value.requires_grad and parameters:
            gradients = gradients_of(weight, value, parameters)
            norm = math.sqrt(sum(float(part.double().square().sum()) for part in gradients))
        number = float(value.detach() if isinstance(value, Tensor) else value)
        found.append(Term(name, float(weight), number, norm))
    total = sum(term.gradient_norm for term in found)
    return [replace(term, share=term.gradient_norm / total) for term in found] if total > 0 else found


def _check_finite(loss: Tensor, terms: Sequence[Term]) -> None:
    if math.isfinite(loss.item()) and all(math.isfinite(term.gradient_norm) for term in terms):
        return
    culprits = [f'`{term.name}`' for term in terms if not math.isfinite(term.value + term.gradient_norm)]
    raise TRGError(
        f'the loss is {loss.item()} in the first step; value or gradient not finite: '
        f'{", ".join(culprits) or "no single term, only their weighted sum"}'
    )
