"""The student's tokens in the width of the teacher's: those of a hooked projector, or the student's own."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trg_torchdistill._checks import advice, check_choice, check_text
from trg_torchdistill.errors import TRGError
from trg_torchdistill.io import IoDict, read_feature
from trg_torchdistill.losses.paired import PairedTokens
from trg_torchdistill.tokens import Tokenizer, flatten_grid, pool


@dataclass(frozen=True)
class Projection:
    """Where a loss finds them.

    Attributes:
        key: Key of the loss in the YAML.
        student_path: Module path of the student's feature.
        path: Module path of the projector, None where the widths are equal.
        io: ``input`` or ``output`` of that module.
    """

    key: str
    student_path: str
    path: str | None
    io: str

    def __post_init__(self) -> None:
        if self.path is not None:
            check_text('projection_module_path', self.path)
        check_choice('projection_module_io', self.io, ('input', 'output'))

    def tokens(self, io_dict: IoDict, pair: PairedTokens) -> Tensor:
        """Returns the projected tokens [B, N, D_T] of a pair, on the common grid.

        Raises:
            TRGError: If the projector's output is missing, is no grid of the student's, or has another width.
        """
        found, source = pair.student, f"the student's `{self.student_path}`"
        wanted = pair.teacher.shape[2]
        line = (
            'add a block under `projectors:` of `Student4TRG` with '
            f'`in_features: {pair.student.shape[2]}, out_features: {wanted}`, name it in '
            "`projection_module_path: 'projectors.NAME'` and hook 'projectors.NAME', or set `global_weight: 0`"
        )
        if self.path is not None:
            found, source = self._projected(io_dict, self.path, pair), f'the projection `{self.path}`'
            line = f'change its `out_features:` to {wanted} under `projectors:` of `Student4TRG`'
        if found.shape[2] != wanted:
            raise TRGError(
                f"expected {source} to have the width of the teacher's tokens, {wanted}, got {found.shape[2]}; {line}"
            )
        return found

    def _projected(self, io_dict: IoDict, path: str, pair: PairedTokens) -> Tensor:
        feature = read_feature(io_dict, path, self.io, 'student', self.key)
        size, batch_size = pair.student_grid, len(pair.teacher)
        with advice(
            f'`{self.key}` read the projection `{path}` of student tokens on a {size[0]} x {size[1]} grid; '
            f'give the projector of `{path}` the same `tokens:` as `student_tokens:` of `{self.key}`'
        ):
            grid = Tokenizer(grid_size=size if feature.ndim == 3 else None)(feature)
        if len(grid) != batch_size:
            raise TRGError(
                f'expected the projection `{path}` to have the batch size of the student, {batch_size}, got '
                f'{len(grid)}; change `projection_module_path:` to a module whose first dimension is the image'
            )
        return flatten_grid(pool(grid, pair.grid))
