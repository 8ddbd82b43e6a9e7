"""Chooses the layer whose output becomes the tokens: the last spatial one before pooling, unless the user names it."""

from __future__ import annotations

from trg_torchdistill._checks import nearest
from trg_torchdistill.cli.probe.probe import ROWS, ModelProbe, Record, module_at
from trg_torchdistill.errors import TRGError

MAX_ALTERNATIVES = 4


def choose_layer(probe: ModelProbe, side: str, path: str | None = None, like: Record | None = None) -> Record:
    """Returns the record of the layer to hook.

    Args:
        probe: What the modules of the model did with a batch.
        side: ``student`` or ``teacher``, for the messages.
        path: Module path from ``--student-layer`` or ``--teacher-layer``, None to choose.
        like: A layer whose width and grid the chosen one shall have too, if any has.

    Raises:
        TRGError: If there is no such module, it does not run, or its output cannot be cut into tokens.
    """
    if path is not None:
        return _named_layer(probe, side, path)
    stages = _stages(probe)
    if not stages:
        wanted = f'expected `{probe.key}` to have a feature map or a token sequence of more than one cell before its'
        if probe.batch.is_text:
            raise TRGError(f'{wanted} pooling, got none for {probe.batch.shape[1]} tokens; give a `--{side}-layer`')
        size = ' x '.join(map(str, probe.batch.shape[2:]))
        raise TRGError(
            f'{wanted} pooling, got none for images of {size}; give a larger `--input-size` or a `--{side}-layer`'
        )
    alike = [record for record in stages if like is None or (record.width, record.grid) == (like.width, like.grid)]
    last = [record for record in alike or stages if _is_in_trunk(probe, record)] or alike or stages
    # The outermost module that returns it: `layer4`, not `layer4.1`.
    return next(record for record in reversed(stages) if record.same_as == last[-1].same_as)


def alternatives(probe: ModelProbe, chosen: Record) -> list[Record]:
    """Returns further layers to offer, the deepest first: blocks of the trunk, one or two of each shape."""
    blocks = {record.same_as: record for record in _stages(probe) if not record.is_leaf and _is_in_trunk(probe, record)}
    if len(blocks) < 2:
        blocks = {record.same_as: record for record in _stages(probe) if _is_in_trunk(probe, record)}
    blocks.pop(chosen.same_as, None)
    offered: dict[tuple[int, ...] | None, list[Record]] = {}
    for record in sorted(blocks.values(), key=lambda record: record.order, reverse=True):
        of_shape = offered.setdefault(record.shape, [])
        if record.path.count('.') <= chosen.path.count('.') + 1 and len(of_shape) < 1 + (record.shape == chosen.shape):
            of_shape.append(record)
    return [record for of_shape in offered.values() for record in of_shape][:MAX_ALTERNATIVES]


def _is_in_trunk(probe: ModelProbe, record: Record) -> bool:
    """Whether a module stands in a row of modules, not in a branch of a block."""
    parent = record.path.rpartition('.')[0]
    return parent in ('', probe.path_of_model) or isinstance(module_at(probe.root, parent), ROWS)


def _named_layer(probe: ModelProbe, side: str, path: str) -> Record:
    record = probe.record(path)
    fitting = [stage.path for stage in _stages(probe)]
    last = f'; a layer that fits is `{fitting[-1]}`' if fitting else ''
    if record is None:
        top = ', '.join(f'`{name}`' for name, _ in probe.root.named_children())
        known = [known.path for known in probe.records]
        wanted, found = f'of `{probe.key}`', f'{nearest(path, known)}; its top modules are {top}'
    elif not record.runs:
        wanted = f'that the forward pass of `{probe.key}` calls'
        found = f', which did not run, so that its hook would never fire{last}'
    elif not record.is_in_order:
        wanted = f'of `{probe.key}` whose tokens stand in the rows of the image'
        found = f', where they are in windows or in another order, so that the losses would pair the wrong cells{last}'
    elif record.layout is None:
        shape = '' if record.shape is None else f' {list(record.shape)}'
        wanted = f'of `{probe.key}` whose output is a feature map, a token sequence or a vector of each image'
        found = f', which returns {record.value_type}{shape} for a batch of {probe.batch.shape[0]}{last}'
    else:
        return record
    raise TRGError(f'expected `--{side}-layer` to be a module {wanted}, got {path!r}{found}')


def _stages(probe: ModelProbe) -> list[Record]:
    """Returns the layers to take by default in the order of their execution, those of classes alone left out.

    A fully convolutional head makes a map of its classes: it is as wide as the logits, and no weights come after it.
    """
    running = sorted((record for record in probe.records if record.runs), key=lambda record: record.order)
    last_weights = max((record.order for record in running if record.has_weights), default=0)
    return [
        record
        for record in running
        if record.is_stage
        and record.is_spatial
        and not (record.width == probe.num_logits and record.order >= last_weights)
    ]
