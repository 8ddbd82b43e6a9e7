"""``trg-torchdistill plot``: curves of finished runs, or what teacher and student of a YAML make of images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torchdistill.common.main_util import set_seed

from trg_torchdistill.cli.plot.curves import METRICS, draw_curves, read_run
from trg_torchdistill.cli.plot.figures import new_figure, save_figure
from trg_torchdistill.cli.plot.images import Images, as_seen, build_dataset, draw_images, in_pairs, read_images
from trg_torchdistill.cli.plot.models import (
    AFTER,
    BEFORE,
    TEACHER,
    Model,
    build_models,
    penultimate_features,
    read_config,
)
from trg_torchdistill.cli.plot.pictures import draw_context, draw_embedding, draw_graph, embed, load_tsne
from trg_torchdistill.cli.plot.tokens import (
    choose_cell,
    graph_to_draw,
    losses_to_draw,
    neighbors_in_other_images,
    shares_of_edges,
    tokens_of,
)
from trg_torchdistill.cli.probe.arguments import positive
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.runtime.logs import logging_to
from trg_torchdistill.cli.runtime.placement import choose_placement
from trg_torchdistill.cli.runtime.random_state import preserved_random_state
from trg_torchdistill.errors import TRGError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = ('token_graph', 'context_maps', 'tsne')
NUM_IMAGES = 8
NUM_SAMPLES = 500
# Options that mean nothing to curves; all are None unless they are given.
OF_CONFIG = (
    'only', 'student', 'dataset', 'images', 'image', 'cell', 'neighbors', 'samples',
    'term', 'student_layer', 'teacher_layer', 'seed', 'device',
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the sub-command."""
    parser.add_argument(
        'paths', nargs='+', metavar='RUN_DIR|CONFIG', help='folders of runs: training curves; one YAML: its models'
    )
    parser.add_argument('-o', '--output', required=True, metavar='DIR', help='folder of the pictures')
    parser.add_argument('--labels', nargs='+', metavar='TEXT', help='names of the runs, or of the `--student` files')
    parser.add_argument('--format', nargs='+', choices=('png', 'svg'), default=['png', 'svg'], help='(png svg)')
    parser.add_argument('--dpi', type=positive, default=150, metavar='N', help='pixels an inch of a PNG (150)')
    models = parser.add_argument_group('pictures of a CONFIG')
    models.add_argument('--only', nargs='+', choices=PICTURES, help='pictures to draw (all)')
    models.add_argument(
        '--student', nargs='+', metavar='CKPT', help='weights of the trained student; default: dst_ckpt of the YAML'
    )
    models.add_argument('--dataset', metavar='ID', help='key under `datasets:`; default: that of the test')
    models.add_argument(
        '--images',
        nargs='+',
        type=int,
        metavar='N',
        help=f'positions in the data set of the images of the token graph; default: {NUM_IMAGES}, two of a class',
    )
    models.add_argument('--image', type=int, metavar='I', help='image with the chosen token, from 0 (0)')
    models.add_argument(
        '--cell', nargs=2, type=int, metavar=('ROW', 'COLUMN'), help='cell of the chosen token; default: the middle'
    )
    models.add_argument('--neighbors', type=positive, metavar='K', help="edges to draw; default: the YAML's, or 8")
    models.add_argument('--samples', type=positive, metavar='N', help=f'images of the t-SNE ({NUM_SAMPLES})')
    models.add_argument('--term', metavar='NAME', help='TRG term of the YAML; default: the first one')
    models.add_argument('--student-layer', metavar='PATH', help="module of the student; default: the term's")
    models.add_argument('--teacher-layer', metavar='PATH', help="module of the teacher; default: the term's")
    models.add_argument('--seed', type=int, help='seed of initial weights, images and t-SNE (0)')
    models.add_argument('--device', help='cpu (default), cuda, cuda:1, ... or auto')


def run(args: argparse.Namespace) -> int:
    """Draws, prints the names of the files, and returns 0.

    Raises:
        TRGError: For a mistake on the command line, in a run's folder or in the YAML; if an optional package is
            missing.
        RunError: If a picture cannot be written.
    """
    paths = [Path(path).expanduser() for path in args.paths]
    new_figure(1, 1)
    figures = {'curves': _curves(args, paths)} if _are_runs(paths) else _pictures(args, paths[0])
    for name, figure in figures.items():
        for suffix in dict.fromkeys(args.format):
            file = Path(args.output).expanduser() / f'{name}.{suffix}'
            save_figure(figure, file, args.dpi)
            print(file)
    return 0


def _are_runs(paths: Sequence[Path]) -> bool:
    for path in paths:
        if not path.exists():
            raise TRGError(f'expected the folder of a run, or a YAML, got {path}, which does not exist')
    are_folders = [path.is_dir() for path in paths]
    if any(are_folders) and not all(are_folders):
        raise TRGError(f'expected folders of runs, or one YAML, got both: {", ".join(map(str, paths))}')
    if not any(are_folders) and len(paths) > 1:
        raise TRGError(
            f'expected one YAML, got {len(paths)} files; compare several students of one YAML with `--student`, or '
            f'name folders of runs, which hold a {METRICS}'
        )
    return all(are_folders)


def _curves(args: argparse.Namespace, folders: list[Path]) -> Figure:
    for name in OF_CONFIG:
        if getattr(args, name) is not None:
            option = name.replace('_', '-')
            raise TRGError(f'expected `--{option}` with a YAML, got folders of runs; leave it out, or name the YAML')
    labels = _labels(args.labels, folders, 'folders')
    return draw_curves({label: read_run(folder) for label, folder in zip(labels, folders, strict=True)})


def _labels(given: list[str] | None, paths: Sequence[Path], kind: str) -> list[str]:
    """Returns the names given, else those of the paths, as much of each as makes them differ."""
    if given is not None:
        if len(given) != len(paths) or len(set(given)) < len(given):
            raise TRGError(
                f'expected `--labels` to be {len(paths)} different names, one for each of the {kind}, got {given}'
            )
        return given
    resolved = [path.resolve() for path in paths]
    parts = [(path if path.is_dir() else path.with_suffix('')).parts for path in resolved]
    if len(set(parts)) < len(parts):
        raise TRGError(f'expected different {kind}, got one of them twice: {", ".join(map(str, paths))}')
    for length in range(1, max(map(len, parts)) + 1):
        labels = ['/'.join(part[-length:]) for part in parts]
        if len(set(labels)) == len(labels):
            break
    return labels


def _pictures(args: argparse.Namespace, path: Path) -> dict[str, Figure]:
    wanted = args.only or PICTURES
    if 'tsne' in wanted:
        load_tsne()
    seed = args.seed or 0
    checkpoints = _checkpoints(args)
    device = choose_placement(args.device or 'cpu').device
    figures = {}
    with logging_to(None), preserved_random_state():
        set_seed(seed)
        config = read_config(str(path))
        models = build_models(config, checkpoints)
        captions = {model.label: f'{model.label}\n({model.key})' for model in models}
        dataset = build_dataset(config, args.dataset)
        sample = draw_images(dataset, args.samples or NUM_SAMPLES, seed)
        if set(wanted) - {'tsne'}:
            chosen = in_pairs(sample.labels, NUM_IMAGES)
            shown = read_images(dataset, args.images) if args.images else sample.take(chosen)
            figures = _token_pictures(args, config, models, captions, shown, as_seen(shown.values, dataset), device)
        if 'tsne' in wanted:
            points = {model.label: embed(penultimate_features(model, sample.values, device), seed) for model in models}
            figures['tsne'] = draw_embedding(points, captions, sample)
    return figures


def _checkpoints(args: argparse.Namespace) -> dict[str, Path | None]:
    """Returns the files of the trained students by label, None for the one that the YAML names."""
    if args.student is None:
        checkpoints: dict[str, Path | None] = dict.fromkeys(args.labels or [AFTER])
        if len(checkpoints) != 1:
            raise TRGError(f'expected one name in `--labels` for the student of the YAML, got {args.labels}')
    else:
        files = [Path(path) for path in args.student]
        checkpoints = dict(zip(_labels(args.labels, files, '`--student` files'), files, strict=True))
    taken = [label for label in (TEACHER, BEFORE) if label in checkpoints]
    if taken:
        raise TRGError(f'expected the trained student to have a name of its own, got {taken[0]!r}; use `--labels`')
    return checkpoints


def _token_pictures(
    args: argparse.Namespace,
    config: Config,
    models: list[Model],
    captions: dict[str, str],
    shown: Images,
    pixels: torch.Tensor,
    device: torch.device,
) -> dict[str, Figure]:
    image, wanted, figures = args.image or 0, args.only or PICTURES, {}
    if not 0 <= image < len(pixels):
        raise TRGError(f'expected `--image` to be one of the {len(pixels)} images, from 0, got {image}')
    layers = {'student': args.student_layer, 'teacher': args.teacher_layer}
    losses = losses_to_draw(config, models, (shown.values.shape[2], shown.values.shape[3]), layers, args.term)
    if 'token_graph' in wanted:
        if len(pixels) < 2:
            raise TRGError('expected at least two `--images`, so that a token has neighbours in others, got 1')
        loss, graph = next(
            (loss, graph_to_draw(loss.graph, args.neighbors)) for loss in losses if loss.graph is not None
        )
        tokens, grid, mask = tokens_of(loss, models, shown.values.to(device))
        counts = None if mask is None else mask[image]
        row, column = choose_cell(grid, args.cell, f'`{loss.student_module_path}`', counts)
        graphs = {
            label: neighbors_in_other_images(
                values, tokens.get(TEACHER, values), image, row * grid[1] + column, graph, mask
            )
            for label, values in tokens.items()
        }
        shares = shares_of_edges(tokens, graph, mask) if TEACHER in tokens else {}
        titles = [f'class {shown.names[label]}' for label in shown.labels]
        place = (image, row, column)
        figures['token_graph'] = draw_graph(graphs, graph.edges, shares, captions, titles, pixels, place, grid)
    if 'context_maps' in wanted:
        loss, maps = next((loss, loss.maps) for loss in losses if loss.maps is not None)
        tokens, grid, mask = tokens_of(loss, models, shown.values.to(device))
        counts = None if mask is None else mask[image]
        cell = choose_cell(grid, args.cell, f'`{loss.student_module_path}`', counts)
        of_image = {label: values[image, None] for label, values in tokens.items()}
        figures['context_maps'] = draw_context(of_image, captions, pixels[image], cell, grid, maps, counts)
    return figures
