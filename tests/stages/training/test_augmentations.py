"""Augmented copies of pictures, whose features a probe is trained on as well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from stages.dataset.arrays import Rows
from stages.dataset.targets import Examples
from stages.training.augmentations import copy_transform, screenshot
from stages.training.batches import Samples
from stages.training.features import extracted, graph
from stages.training.stem import PooledStem

COUNT = 20


@pytest.fixture
def pictures(tmp_path: Path) -> Rows:
    """One shard of random pictures of 64 px."""
    np.save(tmp_path / "shard.npy", np.random.default_rng(0).integers(0, 256, (COUNT, 64, 64, 3), np.uint8))
    return Rows((tmp_path / "shard.npy",), ("a shard",), (np.arange(COUNT),))


def test_a_copy_is_the_same_each_time_and_differs_from_the_picture_and_from_other_copies(
    pictures: Rows, pooled: PooledStem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = []
    for cache, copy in (("one", 0), ("two", 0), ("one", 1)):
        monkeypatch.setenv("MLPY_CACHE", str(tmp_path / cache))
        torch.manual_seed(len(features))  # a copy depends on its number, not on the state of the generator
        features.append(extracted(pictures, graph(pooled, pictures.shape), 1, copy).take(np.arange(COUNT)))
    plain = extracted(pictures, graph(pooled, pictures.shape), 1).take(np.arange(COUNT))
    assert np.array_equal(features[0], features[1])
    assert not np.allclose(features[0], features[2])
    assert not np.allclose(features[0], plain)


@pytest.mark.filterwarnings("error")
def test_an_augmented_picture_keeps_its_size_and_type() -> None:
    transform = copy_transform((64, 64))
    picture = torch.randint(256, (3, 64, 64), dtype=torch.uint8)
    copies = [transform(picture) for _ in range(50)]
    assert {(copy.shape, copy.dtype) for copy in copies} == {(picture.shape, torch.uint8)}
    assert any((copy[0] == copy[1]).all() for copy in copies), "some are grey"


@pytest.mark.parametrize("size", [(64, 64), (64, 20), (3, 64), (1, 1)])
def test_a_screenshot_shows_the_picture_between_two_bars(size: tuple[int, int]) -> None:
    picture = torch.full((3, 64, 64), 128, dtype=torch.uint8)
    top, left = (64 - size[0]) // 2, (64 - size[1]) // 2
    picture[:, top : top + size[0], left : left + size[1]] = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
    for seed in range(20):
        torch.manual_seed(seed)
        framed = screenshot(picture)
        assert (framed.shape, framed.dtype) == (picture.shape, torch.uint8)
        red = (framed[0] > 150) & (framed[1] < 100)
        assert red.any()
        assert not red[0].any(), "above it is a bar, or the letterbox of a flat picture"
        assert not red[-1].any()


def test_a_screenshot_of_a_blank_picture_has_its_size() -> None:
    assert screenshot(torch.full((3, 64, 64), 128, dtype=torch.uint8)).shape == (3, 64, 64)


def rows(value: float) -> Rows:
    constant = Rows((), ("rows",), (np.arange(1000),))
    constant.__dict__["arrays"] = [np.full((1000, 2), value, np.float32)]
    return constant


def test_half_of_the_pictures_are_augmented_copies() -> None:
    nothing = np.zeros((1000, 1))
    examples = Examples(np.arange(1000), nothing.astype(np.float32), nothing.astype(bool), nothing.astype(np.float32))
    torch.manual_seed(0)
    inputs, *_ = Samples(examples, rows(0), copies=[rows(1), rows(2)]).__getitems__(list(range(1000)))
    shares = [(inputs[:, 0] == value).float().mean().item() for value in (0, 1, 2)]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.05)
    assert torch.equal(inputs[:, 0], inputs[:, 1]), "a row is of one copy"
