"""Random changes of training pictures.

Two kinds, as frozen features make pictures expensive to change:

- `augment` makes augmented copies, whose features are computed once and cached. Each copy of a picture is always the
  same.
- `epoch_transform` changes a picture anew in each epoch, for networks that are trained from pixels.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps
from torchvision.transforms import v2

from stages.inference.decoding import BLANK, Pixels

RULE = 4
"""Part of the cache keys. Increase it when `augment` gives other pictures."""
SMALL, COLOURS = (24, 65), (8, 33)
"""Sides, in px, and numbers of colours of small originals; the upper bounds are exclusive."""
BORDERS = (0, 24, 128, 255)
"""Grey levels of frames: black, a dark chat client's background, grey, white."""


def augment(pixels: Pixels, copy: int, places: Sequence[int]) -> Pixels:
    """Augmented copies of pictures. A picture's copy does not depend on the other pictures.

    Args:
        pixels: uint8 [n, height, width, 3].
        copy: number of the copy, from 0.
        places: positions of the pictures in their shard; with `copy` they are the seeds.

    Returns:
        uint8 [n, height, width, 3].
    """
    transform = copy_transform(pixels.shape[1:3])
    with torch.random.fork_rng(devices=()):  # leaves the training's own random numbers as they are
        copies = []
        for place, picture in zip(places, pixels, strict=True):
            torch.manual_seed(place + 1_000_003 * (copy + 1))
            copies.append(transform(torch.from_numpy(picture).permute(2, 0, 1)).permute(1, 2, 0).numpy())
    return np.stack(copies)


def copy_transform(size: tuple[int, ...]) -> v2.Transform:
    """What people do to pictures before they repost them: mirror, crop, frame, take a screenshot, grey out, recolour,
    compress; and small originals, as other sources have them.

    Args:
        size: height and width of the pictures, in px.

    Returns:
        A transform of uint8 tensors [3, height, width], which keeps their shape.
    """
    frame = [
        v2.Compose([v2.RandomZoomOut(fill=grey, side_range=(1.0, 2.0), p=1.0), v2.Resize(size)]) for grey in BORDERS
    ]
    crop = v2.RandomResizedCrop(size, scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3))
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomChoice(
                [crop, v2.RandomChoice(frame), v2.Lambda(screenshot), v2.Identity()], p=[0.3, 0.3, 0.2, 0.2]
            ),
            v2.RandomGrayscale(0.25),
            v2.RandomApply([v2.ColorJitter(0.2, 0.2, 0.2)], 0.3),
            v2.RandomApply([v2.Lambda(shrink)], 0.25),
            v2.RandomApply([v2.Lambda(recompress)], 0.2),
        ]
    )


def screenshot(picture: torch.Tensor) -> torch.Tensor:
    """A picture, uint8 [3, height, width], as a program shows it: between two bars with buttons or lines of text.

    Without them, a model takes the bars for the stripes of a flag.
    """
    shown = v2.functional.to_pil_image(_without_letterbox(picture))
    ground, ink = ((int(torch.randint(*grey, ())),) * 3 for grey in ((0, 60), (140, 256)))
    if torch.rand(()) < 0.4:  # a light theme
        ground, ink = (255 - ground[0],) * 3, (255 - ink[0],) * 3
    above, below = (max(4, int(share * shown.height)) for share in (0.05 + 0.3 * torch.rand(2)).tolist())
    side = int(0.1 * float(torch.rand(())) * shown.width)
    screen = ImageOps.expand(shown, (side, above, side, below), ground)
    draw = ImageDraw.Draw(screen)
    for top, bar in ((0, above), (screen.height - below, below)):
        size, shape = max(2, bar // 4), draw.ellipse if torch.rand(()) < 0.5 else draw.rectangle
        middle = top + bar // 2
        for left in (torch.rand(int(torch.randint(0, 5, ()))) * screen.width).int().tolist():
            stretched = left + size * (1 if shape == draw.ellipse else int(torch.randint(1, 8, ())))
            shape((left, middle - size // 2, stretched, middle + size // 2), fill=ink)
    square = ImageOps.pad(screen, (picture.shape[2], picture.shape[1]), color=(BLANK,) * 3)
    framed: torch.Tensor = v2.functional.pil_to_tensor(square)
    return framed


def _without_letterbox(picture: torch.Tensor) -> torch.Tensor:
    """The part of a picture, uint8 [3, height, width], that is not plain background, if it has one."""
    there = (picture != BLANK).any(0)
    rows, columns = there.any(1).nonzero(), there.any(0).nonzero()
    if not len(rows):
        return picture
    return picture[:, int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]


def shrink(picture: torch.Tensor) -> torch.Tensor:
    """A picture, uint8 [3, height, width], as if its original were an icon of 24 to 64 px, sometimes of few colours."""
    small = v2.functional.resize(picture, [int(torch.randint(*SMALL, ()))], antialias=True)
    if torch.rand(()) < 0.5:
        image = v2.functional.to_pil_image(small).quantize(int(torch.randint(*COLOURS, ())))
        small = v2.functional.pil_to_tensor(image.convert("RGB"))
    scaled: torch.Tensor = v2.functional.resize(small, list(picture.shape[1:]), antialias=True)
    return scaled


def recompress(picture: torch.Tensor) -> torch.Tensor:
    """A picture, uint8 [3, height, width], after JPEG compression with a random quality of 25 to 60.

    With Pillow, because torchvision deprecates its own JPEG functions.
    """
    file = io.BytesIO()
    quality = int(torch.randint(25, 61, ()))
    v2.functional.to_pil_image(picture).save(file, "JPEG", quality=quality)
    compressed: torch.Tensor = v2.functional.pil_to_tensor(Image.open(file))
    return compressed


def epoch_transform(background: int) -> v2.Transform:
    """Random flips, small rotations and zooms of Pillow pictures, as in the 2020 project.

    Args:
        background: grey level (0 to 255) of uncovered corners.
    """
    return v2.Compose([v2.RandomHorizontalFlip(), v2.RandomAffine(10, scale=(0.9, 1.1), fill=background)])
