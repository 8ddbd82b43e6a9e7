"""Draws a set of shapes in COCO's format, the same on every machine.

python benchmarks/tasks/shapes.py FOLDER [--train 960] [--val 160] [--seed 0]

FOLDER/train and FOLDER/val get PNG images of 40 to 64 pixels a side, FOLDER/train.json and FOLDER/val.json their
instances: boxes and polygons. Triangles, squares, stars and disks of any colour and turn lie over each other on a noisy
background. Their categories are the first four that torchdistill's ``coco.dataset`` keeps for segmentation, where they
become the classes 1 to 4; where two overlap it writes 255, which is to be ignored.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

# Radii of the corners of a polygon, in turn, and its COCO category.
SHAPES = {'triangle': ([1.0] * 3, 5), 'square': ([1.0] * 4, 2), 'star': ([1.0, 0.4] * 5, 16), 'disk': ([0.85] * 24, 9)}
SIDES = (40, 65)
MOST_SHAPES = 5
NOISE = 25.0


def draw_split(folder: Path, split: str, count: int, generator: np.random.Generator) -> None:
    """Writes the images and the instances of a split."""
    (folder / split).mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        width, height = (int(side) for side in generator.integers(*SIDES, size=2))
        image, shapes = draw_image(width, height, generator)
        name = f'{number:05d}.png'
        image.save(folder / split / name)
        images.append({'id': number, 'file_name': name, 'width': width, 'height': height})
        for shape in shapes:
            annotations.append({'id': len(annotations) + 1, 'image_id': number, 'iscrowd': 0, **shape})
    categories = [{'id': category, 'name': name} for name, (_, category) in SHAPES.items()]
    found = {'images': images, 'annotations': annotations, 'categories': categories}
    (folder / f'{split}.json').write_text(json.dumps(found))


def draw_image(width: int, height: int, generator: np.random.Generator) -> tuple[Image.Image, list[dict[str, Any]]]:
    """Returns an image and its instances, the last one on top."""
    image = Image.new('RGB', (width, height), _color(generator))
    pen = ImageDraw.Draw(image)
    shapes = []
    for _ in range(generator.integers(1, MOST_SHAPES + 1)):
        name = list(SHAPES)[generator.integers(len(SHAPES))]
        polygon = _polygon(name, width, height, generator)
        pen.polygon([tuple(corner) for corner in polygon], fill=_color(generator))
        shapes.append(_instance(name, polygon))
    pixels = np.asarray(image) + NOISE * generator.standard_normal((height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), shapes


def _polygon(name: str, width: int, height: int, generator: np.random.Generator) -> np.ndarray[Any, Any]:
    """Corners [n, 2] of a shape that lies inside the image, in whole pixels."""
    radii = np.array(SHAPES[name][0]) * generator.uniform(8, 16)
    angles = 2 * math.pi * (np.arange(len(radii)) / len(radii) + generator.uniform())
    margin = math.ceil(radii.max()) + 1
    center = [generator.uniform(margin, side - margin) for side in (width, height)]
    return np.rint(center + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)).astype(int)


def _instance(name: str, polygon: np.ndarray[Any, Any]) -> dict[str, Any]:
    low, high = polygon.min(0), polygon.max(0)
    x, y = polygon.T
    area = 0.5 * abs(int((x * np.roll(y, 1) - y * np.roll(x, 1)).sum()))
    box = [int(side) for side in (*low, *(high - low))]
    return {'category_id': SHAPES[name][1], 'segmentation': [polygon.flatten().tolist()], 'bbox': box, 'area': area}


def _color(generator: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = generator.integers(40, 216, size=3)
    return int(red), int(green), int(blue)


def main() -> None:
    """Draws both splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--train', type=int, default=960)
    parser.add_argument('--val', type=int, default=160)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    for number, split in enumerate(('train', 'val')):
        draw_split(args.folder, split, getattr(args, split), np.random.default_rng((args.seed, number)))


if __name__ == '__main__':
    main()
