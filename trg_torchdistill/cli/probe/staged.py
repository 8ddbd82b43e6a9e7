"""Looks at a model as one training stage uses it: inside a wrapper, or cut and put together by ``sequential:``."""

from __future__ import annotations

from dataclasses import replace

from torchdistill.models.util import redesign_model

from trg_torchdistill.cli.probe.build import offline
from trg_torchdistill.cli.probe.hooks import wrapped
from trg_torchdistill.cli.probe.probe import ModelProbe, probe_model
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.deferred import deferred_in, resolve
from trg_torchdistill.errors import TRGError


def of_stage(config: Config, path: tuple[str, ...], probe: ModelProbe) -> ModelProbe:
    """Returns what of a model runs in a stage, under the paths that the hooks of that stage name.

    Args:
        config: A YAML read by :func:`~trg_torchdistill.cli.recipe.deferred.load_deferred`, its dependencies imported.
        path: Path of the side in the stage, ``train.student`` for example.
        probe: The plain model. What the stage freezes of it is frozen in this one.

    Raises:
        TRGError: If the wrapper or the redesign cannot be built, or nothing of the model runs in it.
    """
    datasets = {id(deferred) for deferred in deferred_in(config.get('datasets'))}
    block = resolve(config.mapping(*path), datasets, f'write the value itself in {config.where(*path)}')
    data = block
    for key in reversed(path):
        data = {key: data}
    with offline():
        root = wrapped(Config(config.path, config.text, data), path, probe.model)
    model = redesign_model(root, block, path[-1])
    if model is not root:  # a row of its modules and of adaptations, in an order of its own
        probe = replace(probe_model(probe.key, model, probe.batch), num_logits=None)  # what it returns are none
    elif root is probe.model:
        return probe
    paths = {module: name for name, module in root.named_modules()}
    # The host looks for the path of an adaptation, with `+` in front, in the redesigned model.
    renamed = {
        name: paths.get(module, f'+{name}' if model is not root else '') for name, module in probe.model.named_modules()
    }
    records = [
        replace(record, path=renamed[record.path], same_as=renamed.get(record.same_as, ''))
        for record in probe.records
        if renamed[record.path]
    ]
    if not records:
        key = config.get(*path, 'auxiliary_model_wrapper', 'key')
        raise TRGError(
            f'expected the {path[-1]} to run in {config.where(*path[:-1])}, got `{key}` in its place, '
            f'{config.where(*path, "auxiliary_model_wrapper")}; choose another stage with `--stage`'
        )
    return replace(probe, root=root, records=tuple(records))
