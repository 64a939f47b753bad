"""Which part of a picture a score hangs on: captum's occlusion, asked of the exported model itself."""

from __future__ import annotations

import numpy as np
import torch
from captum.attr import Occlusion
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stages.inference.decoding import Pixels
from stages.inference.predictor import Predictor

WINDOW = 4
"""Sides of the covered square that make a picture's side ..."""
STEPS = 2
"""... and steps of it in a square's side."""
STRENGTH = 0.6
"""Opacity of the overlay where it is strongest."""
FOR, AGAINST = (214, 39, 40), (31, 119, 180)
"""Colours of what speaks for the label, and of what speaks against it."""


def attributed(square: Pixels, predictor: Predictor, label: int) -> NDArray[np.float32]:
    """How much lower a label's score is without each place of a picture: [size, size], negative where it is higher.

    Args:
        square: uint8 [size, size, 3], as the predictor takes it.
        predictor: the model.
        label: column of its scores.
    """

    def score(pixels: Tensor) -> Tensor:
        taken = pixels.permute(0, 2, 3, 1).round().clamp(0, 255).byte().numpy()
        return torch.from_numpy(predictor.score(np.ascontiguousarray(taken))[:, label])

    pixels = torch.from_numpy(square.astype(np.float32)).permute(2, 0, 1).unsqueeze(0)
    side = max(2, len(square) // WINDOW)
    found = Occlusion(score).attribute(
        pixels,
        sliding_window_shapes=(3, side, side),
        strides=(3, max(1, side // STEPS), max(1, side // STEPS)),
        baselines=float(predictor.sidecar.background),
        perturbations_per_eval=16,
    )
    places: NDArray[np.float32] = found[0].mean(0).numpy().astype(np.float32)
    return places


def overlaid(square: Pixels, places: NDArray[np.float32]) -> Pixels:
    """A picture, in grey, under what `attributed` found: red speaks for the label, blue against it."""
    grey = np.asarray(Image.fromarray(square).convert("L").convert("RGB"), np.float32)
    most = float(np.abs(places).max())
    weight = np.abs(places)[..., None] / most * STRENGTH if most else np.zeros((*places.shape, 1), np.float32)
    colour = np.where(places[..., None] > 0, np.array(FOR, np.float32), np.array(AGAINST, np.float32))
    mixed: Pixels = (grey * (1 - weight) + colour * weight).round().astype(np.uint8)
    return mixed
