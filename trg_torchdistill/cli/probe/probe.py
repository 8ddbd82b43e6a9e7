"""Sends one random batch through a model to see what its modules make of it; the random state is left as it was."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trg_torchdistill.cli.probe.batch import BATCH_SIZE, Batch, image_batch
from trg_torchdistill.cli.probe.cell_order import out_of_order
from trg_torchdistill.cli.probe.layouts import Evidence, cells_of, is_pooling, sequence_cells
from trg_torchdistill.cli.runtime.random_state import preserved_random_state
from trg_torchdistill.errors import TRGError, placed
from trg_torchdistill.io import default_entry, first_tensor
from trg_torchdistill.procs import logits_in

# Containers whose children run one after the other.
ROWS = (nn.Sequential, nn.ModuleList)
# What a stage puts before the paths of a model: a wrapper's name for it, or the sign of an adaptation.
PREFIXES = ('student_model.', 'teacher_model.', 'model.', '+')


@dataclass(frozen=True)
class Record:
    """One module of a model and what it did with a batch.

    Attributes:
        path: Module path, as a ``forward_hook`` of the host names it.
        class_name: Class of the module.
        order: Position among all modules in the order in which they finished (the last time), 0 if it did not run.
        shape: Shape of its output, of the first tensor of a tuple, of one entry of a mapping; None if it holds none.
        value_type: Class of its output.
        key: Entry of a mapping in which that tensor is; None if no other holds one.
        layout: Layout of the tokenizer, ``bchw``, ``bhwc``, ``bnd``, ``bld`` or ``bd``; None if it cannot be cut into
            tokens.
        grid: Cells [h, w] of the output, None without a layout.
        num_prefix_tokens: Class and register tokens in front of a sequence.
        same_as: Path of the first module that returned the same tensor; its own path otherwise.
        is_stage: Whether it is a map or sequence to take by default: no output of the last normalisation over
            channels, of pooling or of dropout, no module that runs twice.
        has_weights: Whether it has parameters of its own, not only its children's.
        is_leaf: Whether it has no children.
        is_in_order: Whether its tokens stand in the rows of the image; it has no layout if they do not.
    """

    path: str
    class_name: str
    order: int = 0
    shape: tuple[int, ...] | None = None
    value_type: str = 'None'
    key: str | None = None
    layout: str | None = None
    grid: tuple[int, int] | None = None
    num_prefix_tokens: int = 0
    same_as: str = ''
    is_stage: bool = False
    has_weights: bool = False
    is_leaf: bool = False
    is_in_order: bool = True

    @property
    def runs(self) -> bool:
        """Whether the forward pass calls the module, so that its hook fires."""
        return self.order > 0

    @property
    def cells(self) -> int:
        """Number of tokens of an image, prefix tokens left out; 0 without a layout."""
        return 0 if self.grid is None else self.grid[0] * self.grid[1]

    @property
    def is_spatial(self) -> bool:
        """Whether it has more than one token an image."""
        return self.cells > 1

    @property
    def width(self) -> int:
        """Features of a token; 0 without a layout."""
        if self.shape is None or self.layout is None:
            return 0
        return self.shape[1] if self.layout in ('bchw', 'bd') else self.shape[-1]

    @property
    def tokens(self) -> dict[str, Any]:
        """Options of the tokenizer that the output needs, none where ``auto`` is right."""
        options: dict[str, Any] = {} if self.key is None else {'key': self.key}
        if self.layout in ('bhwc', 'bld'):
            options['layout'] = self.layout
        if self.num_prefix_tokens:
            options['num_prefix_tokens'] = self.num_prefix_tokens
        if self.layout == 'bnd' and self.grid is not None and self.grid[0] != self.grid[1]:
            options['grid_size'] = list(self.grid)
        return options


@dataclass(frozen=True)
class ModelProbe:
    """One model and what its modules did with a batch.

    Attributes:
        key: Key of the model in the YAML.
        model: The model, with random weights.
        root: Where the paths of ``records`` are looked up: the model, or a wrapper around it.
        records: Its modules in the order of ``named_modules()``.
        batch: The batch.
        returned: Class of what the model returns in eval mode.
        num_logits: Classes of the logits in that, or of the first tensor if it is not certain which they are.
    """

    key: str
    model: nn.Module
    root: nn.Module
    records: tuple[Record, ...]
    batch: Batch
    returned: str
    num_logits: int | None

    @property
    def logits_at(self) -> set[str]:
        """Module paths whose output is as the logits are, and ``.`` for the model itself."""
        shape = (self.batch.shape[0], self.num_logits)
        return {'.', *(record.path for record in self.records if record.shape == shape)}

    def record(self, path: str) -> Record | None:
        """Returns the record of a module path, in which a container may be counted from its end; None if unknown.

        A path in the model itself will do where a wrapper is around it, and one in a wrapper where none is.
        """
        found = module_at(self.root, path)
        found = found if isinstance(found, nn.Module) else find_module(self.model, path)
        names = [path, *(name for name, module in self.root.named_modules() if module is found)]
        return next((record for record in self.records if record.path in names), None)

    @property
    def path_of_model(self) -> str:
        """Path of the model in the wrapper around it, empty without one."""
        return next((name for name, module in self.root.named_modules() if module is self.model), '')


def module_at(root: nn.Module, path: str) -> object:
    """Returns what the host finds at a path, None for nothing; in a container a position may count from the end."""
    found: object = root
    for name in path.split('.'):
        if hasattr(found, name):
            found = getattr(found, name)
        elif isinstance(found, ROWS) and name.lstrip('-').isnumeric():
            found = found[int(name)] if -len(found) <= int(name) < len(found) else None
        else:
            return None
    return found


def find_module(model: nn.Module, path: str) -> nn.Module | None:
    """Returns what a path in a stage names in the model itself, without what the stage puts around it, or None."""
    places = (module_at(model, path.removeprefix(prefix)) for prefix in ('', *PREFIXES))
    return next((found for found in places if isinstance(found, nn.Module)), None)


def run_model(key: str, model: nn.Module, image_size: tuple[int, int]) -> ModelProbe:
    """As :func:`probe_model`, with random images of a size."""
    with preserved_random_state():
        return probe_model(key, model, image_batch(model, image_size))


def probe_model(key: str, model: nn.Module, batch: Batch) -> ModelProbe:
    """Sends a batch through a model, in eval mode and without gradients, and looks at every module.

    Raises:
        TRGError: If the model does not take such a batch.
    """
    watch = _Watch(model, batch)
    was_training = model.training
    try:
        with (
            placed(f'`{key}` refused a batch of shape {list(batch.shape)}'),
            preserved_random_state(),
            torch.no_grad(),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter('ignore')
            result = batch.run(model.eval())
            watch.remove()
            records = watch.records()
            spatial = {record.path: record.tokens for record in records if record.is_spatial}
            misplaced = set() if batch.is_text else out_of_order(model, spatial, batch.shape[1:])
    finally:
        watch.remove()
        model.train(was_training)
    try:
        logits: Tensor | None = logits_in(result, model)
    except TRGError:
        logits = first_tensor(result)
    num_logits = None if logits is None or logits.ndim < 2 else logits.shape[1 if logits.ndim == 4 else -1]
    records = tuple(
        replace(record, layout=None, grid=None, num_prefix_tokens=0, is_in_order=False)
        if record.path in misplaced
        else record
        for record in records
    )
    return ModelProbe(key, model, model, records, batch, type(result).__name__, num_logits)


class _Watch:
    """Hooks on all modules of a model, and what they saw."""

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        self.batch = batch
        self.modules = {path: module for path, module in model.named_modules() if path}
        rows = [path for path, module in self.modules.items() if isinstance(module, ROWS)]
        self.in_blocks = {path for path in self.modules if any(path.startswith(f'{row}.') for row in rows)}
        self.evidence = Evidence()
        self.results: dict[str, tuple[int, Any]] = {}
        self.calls: dict[str, int] = dict.fromkeys(self.modules, 0)
        self.handles = [
            module.register_forward_hook(partial(self._note, path)) for path, module in self.modules.items()
        ]

    def remove(self) -> None:
        """Takes the hooks away."""
        for handle in self.handles:
            handle.remove()

    def records(self) -> tuple[Record, ...]:
        """Returns a record of each module."""
        self.evidence.settle()
        maps: list[tuple[int, int]] = []
        first_with: dict[int, str] = {}
        found = {}
        for path, (order, value) in sorted(self.results.items(), key=lambda entry: entry[1][0]):
            key, tensor = default_entry(value)
            same_as = path if tensor is None else first_with.setdefault(id(tensor), path)
            found[path] = self._record(path, order, value, key, tensor, same_as, maps)
            grid = found[path].grid
            if grid is not None and min(grid) > 1 and isinstance(self.modules[path], nn.Conv2d):
                maps.append(grid)
        return tuple(found.get(path) or Record(path, type(module).__name__) for path, module in self.modules.items())

    def _record(
        self,
        path: str,
        order: int,
        value: Any,
        key: str | None,
        tensor: Tensor | None,
        same_as: str,
        maps: list[tuple[int, int]],
    ) -> Record:
        module = self.modules[path]
        shape = None if tensor is None else tuple(tensor.shape)
        layout, grid, prefix = None, None, 0
        if tensor is not None and shape is not None and shape[:1] == (BATCH_SIZE,) and tensor.is_floating_point():
            if self.batch.is_text:
                layout, grid = sequence_cells(shape, self.batch.shape[1])
            else:
                layout, grid, prefix = cells_of(shape, self.evidence.channels(tensor), maps)
        passes_on = any(word in type(module).__name__ for word in ('Drop', 'Permute', 'Identity'))
        return Record(
            path,
            type(module).__name__,
            order,
            shape,
            type(value).__name__,
            key,
            layout,
            grid,
            prefix,
            same_as,
            is_stage=tensor is not None
            and grid is not None
            and not isinstance(value, dict)
            and self.calls[path] == 1
            and not (self.evidence.is_normed(tensor) or is_pooling(module) or passes_on),
            has_weights=any(True for _ in module.parameters(recurse=False)),
            is_leaf=not any(True for _ in module.children()),
        )

    def _note(self, path: str, module: nn.Module, value: Any, result: Any) -> None:
        self.evidence.add(module, value, result, is_last_norm=path not in self.in_blocks)
        self.calls[path] += 1
        self.results[path] = (sum(self.calls.values()), result)
