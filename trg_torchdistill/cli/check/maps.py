"""Whether the N x N numbers that losses make of an image fit, known from shapes alone, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping

from trg_torchdistill.cli.probe.build import relations_in
from trg_torchdistill.cli.probe.probe import ModelProbe
from trg_torchdistill.cli.recipe.config import Config, UnknownHereError
from trg_torchdistill.losses import RelationLoss

MAX_MAP_BYTES = 2**32


def check_maps(config: Config, stage: tuple[str, ...], probes: Mapping[str, ModelProbe], batch_size: int) -> int:
    """Returns the largest batch size, at most ``batch_size``, with which the maps of a stage are quick.

    An image has about eight maps of N x N numbers, with the softmax, the error and the gradients of both models; a
    batch here has at most 1 GiB of them.

    Raises:
        UnknownHereError: If the maps of one image need more than 4 GiB, so that it is better not to try.
    """
    for name, loss in relations_in(config, stage).items():
        if loss.maps is None:
            continue
        cells = min((_cells(loss, side, probe) for side, probe in probes.items()), default=0)
        needed = 8 * 4 * cells**2
        if needed > MAX_MAP_BYTES:
            where = config.where(*stage, 'criterion', 'kwargs', 'sub_terms', name, 'criterion', 'kwargs')
            raise UnknownHereError(
                f'not tried: the {loss.maps.name} of `{name}` has {cells} x {cells} numbers an image, about '
                f'{needed / 2**30:.0f} GiB each; choose later layers, or a larger `patch_size:`, in {where}. If the '
                'images are smaller than these, give `--input-size`'
            )
        batch_size = min(batch_size, max(1, 2**30 // max(needed, 1)))
    return batch_size


def _cells(loss: RelationLoss, side: str, probe: ModelProbe) -> int:
    """Returns the tokens of an image at the layer that a loss reads, 0 if that is not known."""
    paths = {'student': loss.student_module_path, 'teacher': loss.teacher_module_path}
    tokenizers = {'student': loss.student_tokenizer, 'teacher': loss.teacher_tokenizer}
    record = probe.record(paths[side]) or probe.record(paths[side].removeprefix('student_model.'))
    return 0 if record is None else record.cells // tokenizers[side].patch_size ** 2
