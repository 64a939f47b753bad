"""Batches for training and validation, from rows that lie in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from torchvision.transforms import v2

from stages.config.train import Train
from stages.dataset.arrays import Ids, Rows
from stages.dataset.targets import Examples, Task
from stages.training.features import Streamed

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Inputs, labels [n, labels], tags [n, tags], members [n, members] that they are for."""


Source = Rows | Streamed


class Samples(Dataset[Batch]):
    """Examples with their rows, taken a batch at a time; or with a row of one of its views, every second time."""

    def __init__(
        self, examples: Examples, rows: Source, augment: v2.Transform | None = None, views: Sequence[Rows] = ()
    ) -> None:
        self.examples = examples
        self.rows = rows
        self.augment = augment
        self.views = views

    def __len__(self) -> int:
        return len(self.examples.ids)

    def __getitems__(self, places: list[int]) -> Batch:
        ids = self.examples.ids[places]
        labels, members = (torch.from_numpy(each[places]) for each in (self.examples.labels, self.examples.heads))
        tags = torch.from_numpy(self.examples.tags[places].astype(np.float32))
        return torch.from_numpy(self._taken(ids)), labels, tags, members

    def _taken(self, ids: Ids) -> NDArray[Any]:
        if self.views:
            return np.stack(self._viewed(ids))
        if self.augment:
            # Pillow turns a picture many times faster than torch turns a tensor.
            return np.stack([np.asarray(self.augment(Image.fromarray(row))) for row in self.rows.each(ids)])
        return self.rows.take(ids)

    def _viewed(self, ids: Ids) -> list[NDArray[Any]]:
        """Each picture's row, or that of a view of it."""
        sources = [source.each(ids) for source in (*self.views, self.rows)]
        drawn = torch.randint(2 * len(self.views), (len(ids),)).tolist()
        return [sources[min(number, len(self.views))][place] for place, number in enumerate(drawn)]


def augmentation(background: int) -> v2.Transform:
    """As the 2020 project did: flips, small rotations and zooms."""
    return v2.Compose([v2.RandomHorizontalFlip(), v2.RandomAffine(10, scale=(0.9, 1.1), fill=background)])


class Data(pl.LightningDataModule):
    """The splits, shared out among the processes of a run. The order is the seed's and the epoch's alone."""

    def __init__(self, task: Task, rows: Source, params: Train, views: Sequence[Rows] = ()) -> None:
        super().__init__()
        self.params = params
        augment = augmentation(params.background) if getattr(params.model, "augment", False) else None
        self.train = Samples(task.train, rows, augment, views)
        self.val = Samples(task.val, rows)

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.train, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.val, shuffle=False)

    def _loader(self, samples: Samples, shuffle: bool) -> DataLoader[Any]:
        trainer = self.trainer
        processes, rank = (trainer.world_size, trainer.global_rank) if trainer else (1, 0)
        sampler: DistributedSampler[Batch] = DistributedSampler(
            samples, processes, rank, shuffle=shuffle, seed=self.params.seed
        )
        # The batch of one optimiser step is the parameter's, however many processes share it.
        size = max(1, self.params.batch_size // processes)
        # A generator of its own: a loader draws a number when it is opened, and a resumed run opens it at another time.
        return DataLoader(samples, size, sampler=sampler, collate_fn=lambda batch: batch, generator=torch.Generator())
