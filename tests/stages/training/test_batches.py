"""The inputs and targets of a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from stages.dataset.arrays import Rows
from stages.dataset.targets import Examples
from stages.training.augmentations import epoch_transform
from stages.training.batches import Samples

IDS = np.arange(100, 900)


def examples() -> Examples:
    ones = np.ones((len(IDS), 1), np.float32)
    return Examples(IDS, ones * IDS[:, None], ones > 0, ones)


def rows(folder: Path, name: str, values: np.ndarray) -> Rows:
    """Two files with a row for each of `IDS`."""
    halves, ids = np.array_split(values, 2), np.array_split(IDS, 2)
    files = [folder / f"{name}-{number}.npy" for number in range(2)]
    for file, half in zip(files, halves, strict=True):
        np.save(file, half)
    return Rows(tuple(files), tuple(file.name for file in files), tuple(ids))


def test_half_of_a_batch_are_copies_and_each_is_of_its_own_picture(tmp_path: Path) -> None:
    """A row holds its image's id, and the number of the copy: 0 for the picture itself."""
    plain, *copies = (
        rows(tmp_path, str(copy), np.stack([IDS, np.full(len(IDS), copy)], axis=1).astype(np.float32))
        for copy in range(4)
    )
    places = torch.randperm(len(IDS), generator=torch.Generator().manual_seed(1)).tolist()
    torch.manual_seed(1)
    taken, labels, _, _ = Samples(examples(), plain, copies=copies).__getitems__(places)
    assert torch.equal(taken[:, :1], labels)
    shares = np.bincount(taken[:, 1].int().numpy(), minlength=4) / len(IDS)
    assert shares == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6], abs=0.06)


def test_augmented_pictures_keep_their_shape_and_are_filled_with_the_background(tmp_path: Path) -> None:
    white = rows(tmp_path, "white", np.full((len(IDS), 32, 32, 3), 255, np.uint8))
    torch.manual_seed(1)
    taken, *_ = Samples(examples(), white, epoch_transform(128)).__getitems__(list(range(64)))
    assert taken.shape == (64, 32, 32, 3)
    assert taken.unique().tolist() == [128, 255]
