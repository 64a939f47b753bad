"""Occlusion saliency of the exported model by captum: which parts of a picture a score depends on."""

from __future__ import annotations

import numpy as np
import torch
from captum.attr import Occlusion
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stages.inference.decoding import Pixels
from stages.inference.predictor import Predictor

WINDOWS = 4
"""Occluding squares that fit along a picture's side."""
STEPS = 2
"""Steps that a square takes along its own side, so that neighbouring squares overlap by half."""
OPACITY = 0.6
"""Of the overlay where the saliency is greatest."""
FOR, AGAINST = (214, 39, 40), (31, 119, 180)
"""Colours of positive and negative saliency."""


def occlusion(square: Pixels, predictor: Predictor, label: int) -> NDArray[np.float32]:
    """How much a label's score falls where the picture is occluded: [size, size], negative where it rises.

    Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks" (2014).

    Args:
        square: uint8 [size, size, 3], as the predictor takes it.
        predictor: the model.
        label: column of its scores.
    """

    def score(pixels: Tensor) -> Tensor:
        # captum works on float [n, 3, size, size], the graph takes uint8 [n, size, size, 3].
        squares = pixels.permute(0, 2, 3, 1).round().clamp(0, 255).byte().numpy()
        return torch.from_numpy(predictor.score(np.ascontiguousarray(squares))[:, label])

    pixels = torch.from_numpy(square.astype(np.float32)).permute(2, 0, 1).unsqueeze(0)
    side = max(2, len(square) // WINDOWS)
    attributions = Occlusion(score).attribute(
        pixels,
        sliding_window_shapes=(3, side, side),
        strides=(3, max(1, side // STEPS), max(1, side // STEPS)),
        # What the letterbox is filled with, so to the model it means "no picture here".
        baselines=float(predictor.sidecar.background),
        perturbations_per_eval=16,
    )
    # A square covers all three channels at once, so their attributions are equal.
    saliency: NDArray[np.float32] = attributions[0].mean(0).numpy().astype(np.float32)
    return saliency


def overlay(square: Pixels, saliency: NDArray[np.float32]) -> Pixels:
    """Colour a greyscale copy of a picture by its saliency: red speaks for the label, blue against it."""
    grey = np.asarray(Image.fromarray(square).convert("L").convert("RGB"), np.float32)
    greatest = float(np.abs(saliency).max())
    opacity = (
        np.abs(saliency)[..., None] / greatest * OPACITY if greatest else np.zeros((*saliency.shape, 1), np.float32)
    )
    colour = np.where(saliency[..., None] > 0, np.array(FOR, np.float32), np.array(AGAINST, np.float32))
    mixed: Pixels = (grey * (1 - opacity) + colour * opacity).round().astype(np.uint8)
    return mixed
