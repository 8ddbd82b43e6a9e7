"""Runs the first step of the host's own box and looks at what each term weighs in the student's gradient."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from trg_torchdistill.cli.probe.forward import forward_loss, outputs_explained
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.tasks.task import Task
from trg_torchdistill.errors import TRGError, explained
from trg_torchdistill.host import Box, has_model_term, relation_losses, terms_of
from trg_torchdistill.losses.facts import Facts


@dataclass(frozen=True)
class Term:
    """One term of the total loss in the first step.

    Attributes:
        loss: Name of the loss in the YAML; `model_term` is what the models return as a loss.
        part: Which of several terms inside it.
        weight: What it is multiplied with.
        value: Its value before the weight.
        gradient_norm: Norm of the gradient of weight * term on the student's parameters, or on all that is trained in a
            stage that leaves the student alone.
        share: That, divided by the sum over all terms; None if nothing is trained.
    """

    loss: str
    part: str
    weight: float
    value: float
    gradient_norm: float
    share: float | None = None

    @property
    def name(self) -> str:
        """Name of the loss, and after a point that of the part."""
        return f'{self.loss}.{self.part}' if self.part else self.loss

    @property
    def weighted(self) -> float:
        """What the term adds to the loss."""
        return self.weight * self.value


@dataclass(frozen=True)
class FirstStep:
    """What the first step of a stage shows.

    Attributes:
        loss: The total loss.
        terms: Its terms.
        unreached: Parameters of the student that are to be trained and get no gradient.
        facts: What each TRG term has to say of its tokens.
        frozen: By TRG term, the student's layer it reads, where neither that nor anything before it is trained.
    """

    loss: float
    terms: tuple[Term, ...]
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
    config: Config, box: Box, student: nn.Module, batch: Any, batch_size: int, returns_logits: bool = True
) -> FirstStep:
    """Runs the first training step and looks at its terms.

    Args:
        config: The YAML.
        box: The host's box after its pre-epoch process.
        student: The plain student, on whose parameters gradients are measured.
        batch: Items, labels and supplementary values.
        batch_size: The YAML's.
        returns_logits: Whether a failure may be that a model returns something else.

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
        terms = _with_shares(witness.terms(loss), wanted)
    _check_finite(loss, terms)
    with explained('measuring the tokens failed'):
        facts, frozen = witness.facts(batch_size), witness.frozen()
    value = loss.item()
    with explained('the first training step failed'):
        box.post_forward_process(loss=loss)
    return FirstStep(value, tuple(terms), tuple(name for name in named if name in unreached), facts, frozen)


class Witness:
    """Hooks on the terms of a total loss that keep their values, with graph, and TRG's inputs, inside a ``with`` block.

    Args:
        criterion: The host's ``WeightedSumLoss``.
    """

    def __init__(self, criterion: Any) -> None:
        self._terms = {str(name): term for name, term in terms_of(criterion).items()}
        self._has_model_term = has_model_term(criterion)
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

    def terms(self, loss: Tensor) -> list[tuple[str, str, float, Any]]:
        """Returns (loss, part, weight, value) of each term; a loss of ours with several terms is split into them."""
        found: list[tuple[str, str, float, Any]] = []
        for name, (_, weight) in self._terms.items():
            parts = self._relations[name].terms() if name in self._relations else {}
            if len(parts) > 1:
                found += [(name, part, weight * own, value) for part, (own, value) in parts.items()]
            elif name in self._values:
                found.append((name, '', weight, self._values[name]))
        if self._has_model_term:
            found.append(('model_term', '', 1.0, loss - sum(weight * value for _, _, weight, value in found)))
        return found

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


def _with_shares(terms: Sequence[tuple[str, str, float, Any]], parameters: Sequence[Tensor]) -> list[Term]:
    found = []
    for name, part, weight, value in terms:
        norm = 0.0
        if isinstance(value, Tensor) and value.requires_grad and parameters:
            gradients = gradients_of(weight, value, parameters)
            norm = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))
        number = float(value.detach() if isinstance(value, Tensor) else value)
        found.append(Term(name, part, float(weight), number, norm))
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
