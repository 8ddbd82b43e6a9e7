"""The student's tokens in the width of the teacher's: those of a hooked projector, or the student's own."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trg_torchdistill._checks import advice, check_choice, check_text
from trg_torchdistill.errors import TRGError
from trg_torchdistill.io import IoDict, read_feature
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

    def tokens(self, io_dict: IoDict, student_grid: Tensor, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the tokens [B, N, D_T] on the common grid, which ``student`` and ``teacher`` are on.

        Raises:
            TRGError: If the projector's output is missing, is no grid of the student's, or has another width.
        """
        grid, source = student, f"the student's `{self.student_path}`"
        wanted = teacher.shape[1]
        line = (
            'add a block under `projectors:` of `Student4TRG` with '
            f'`in_features: {student.shape[1]}, out_features: {wanted}`, name it in '
            "`projection_module_path: 'projectors.NAME'` and hook 'projectors.NAME', or set `global_weight: 0`"
        )
        if self.path is not None:
            grid, source = self._grid(io_dict, self.path, student_grid, teacher), f'the projection `{self.path}`'
            line = f'change its `out_features:` to {wanted} under `projectors:` of `Student4TRG`'
        if grid.shape[1] != wanted:
            raise TRGError(
                f"expected {source} to have the width of the teacher's tokens, {wanted}, got {grid.shape[1]}; {line}"
            )
        return flatten_grid(grid)

    def _grid(self, io_dict: IoDict, path: str, student_grid: Tensor, teacher: Tensor) -> Tensor:
        feature = read_feature(io_dict, path, self.io, 'student', self.key)
        size = tuple(student_grid.shape[-2:])
        with advice(
            f'`{self.key}` read the projection `{path}` of student tokens on a {size[0]} x {size[1]} grid; '
            f'give the projector of `{path}` the same `tokens:` as `student_tokens:` of `{self.key}`'
        ):
            grid = Tokenizer(grid_size=size if feature.ndim == 3 else None)(feature)
        if len(grid) != len(teacher):
            raise TRGError(
                f'expected the projection `{path}` to have the batch size of the student, {len(teacher)}, got '
                f'{len(grid)}; change `projection_module_path:` to a module whose first dimension is the image'
            )
        return pool(grid, (teacher.shape[2], teacher.shape[3]))
