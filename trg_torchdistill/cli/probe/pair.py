"""Probes the teacher and the student of a YAML with images of one size that both take."""

from __future__ import annotations

from dataclasses import dataclass

from trg_torchdistill.cli.probe.image_size import ImageSize, image_sizes
from trg_torchdistill.cli.probe.probe import ModelProbe, build_untrained, run_model
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.errors import TRGError


@dataclass(frozen=True)
class Pair:
    """Both models of a YAML and what their modules did with a batch.

    Attributes:
        teacher: The teacher.
        student: The student.
        size: Size of the images.
        refused: Sizes that were tried before, with the reason why they did not do.
    """

    teacher: ModelProbe
    student: ModelProbe
    size: ImageSize
    refused: tuple[str, ...] = ()


def probe_pair(
    config: Config,
    stage: tuple[str, ...],
    size: ImageSize | None = None,
    num_classes: int | None = None,
) -> Pair:
    """Builds both models without weights and sends a random batch through each.

    Args:
        config: A YAML read by :func:`~trg_torchdistill.cli.recipe.deferred.load_deferred`, its dependencies imported.
        stage: Path of the training stage, whose data set tells the size of the images.
        size: Size of the images, None to find it.
        num_classes: Overrides ``num_classes`` of both models.

    Raises:
        TRGError: If a model cannot be built, or takes none of the sizes.
    """
    teacher_path = config.teacher_path or ('models', 'teacher_model')
    keys = [str(config.get(*path, 'key')) for path in (teacher_path, config.student_path)]
    teacher = build_untrained(config, teacher_path, num_classes)
    student = build_untrained(config, config.student_path, num_classes)
    refused: list[str] = []
    for candidate in image_sizes(config, stage, [student, teacher]) if size is None else [size]:
        sides = (candidate.height, candidate.width)
        try:
            # The student first: it is the smaller one.
            student_probe = run_model(keys[1], student, sides)
            teacher_probe = run_model(keys[0], teacher, sides)
        except TRGError as error:
            refused.append(f'{candidate}: {error}')
            continue
        return Pair(teacher_probe, student_probe, candidate, tuple(refused))
    raise TRGError(
        f'expected teacher and student to take images of one size; give the right one with `--input-size`. Tried '
        f'{"; ".join(refused)}'
    )
