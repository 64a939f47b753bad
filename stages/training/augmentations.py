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
from PIL import Image
from torchvision.transforms import v2

from stages.inference.decoding import Pixels

RULE = 2
"""Part of the cache keys. Increase it when `augment` gives other pictures."""
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
    """What people do to pictures before they repost them: mirror, crop, frame, grey out, recolour, compress.

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
            v2.RandomChoice([crop, v2.RandomChoice(frame), v2.Identity()], p=[0.4, 0.4, 0.2]),
            v2.RandomGrayscale(0.25),
            v2.RandomApply([v2.ColorJitter(0.2, 0.2, 0.2)], 0.3),
            v2.RandomApply([v2.Lambda(recompress)], 0.2),
        ]
    )


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
