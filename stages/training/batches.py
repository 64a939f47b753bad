"""Cached rows -> batches for training and validation."""

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
from stages.training.augmentations import epoch_transform

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Inputs [n, ...], labels [n, labels], tags [n, tags], heads [n, heads] (see `Examples`)."""


class Samples(Dataset[Batch]):
    """Examples with their inputs. It returns whole batches: taking rows one by one would cost more than training."""

    def __init__(
        self, examples: Examples, rows: Rows, transform: v2.Transform | None = None, copies: Sequence[Rows] = ()
    ) -> None:
        """Use either a transform or copies, or neither.

        Args:
            examples: the pictures and their targets.
            rows: their inputs.
            transform: changes uint8 rows [size, size, 3], as Pillow pictures.
            copies: inputs of augmented copies. Half of a batch comes from them, in equal shares.
        """
        self.examples = examples
        self.rows = rows
        self.transform = transform
        self.copies = copies

    def __len__(self) -> int:
        return len(self.examples.ids)

    def __getitems__(self, places: list[int]) -> Batch:
        ids = self.examples.ids[places]
        labels, heads = (torch.from_numpy(values[places]) for values in (self.examples.labels, self.examples.heads))
        tags = torch.from_numpy(self.examples.tags[places].astype(np.float32))
        return torch.from_numpy(self._inputs(ids)), labels, tags, heads

    def _inputs(self, ids: Ids) -> NDArray[Any]:
        if self.copies:
            return np.stack(self._mixed(ids))
        if self.transform:
            # On a CPU, Pillow rotates pictures many times faster than torch rotates tensors.
            return np.stack([np.asarray(self.transform(Image.fromarray(row))) for row in self.rows.each(ids)])
        return self.rows.take(ids)

    def _mixed(self, ids: Ids) -> list[NDArray[Any]]:
        """For each picture the row of the picture itself, with a probability of 1/2, or of one of its copies."""
        sources = [source.each(ids) for source in (*self.copies, self.rows)]
        # Of 2c equally likely numbers, the lower half are the c copies, and the upper half all mean the picture itself.
        drawn = torch.randint(2 * len(self.copies), (len(ids),)).tolist()
        return [sources[min(number, len(self.copies))][place] for place, number in enumerate(drawn)]


class DataModule(pl.LightningDataModule):
    """The training and validation examples, divided among the processes of a run.

    The order of the training examples depends only on seed and epoch.
    """

    def __init__(self, task: Task, rows: Rows, params: Train, copies: Sequence[Rows] = ()) -> None:
        super().__init__()
        self.params = params
        transform = epoch_transform(params.background) if getattr(params.model, "augment", False) else None
        self.train = Samples(task.train, rows, transform, copies)
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
        # train.batch_size is the batch of an optimiser step, however many processes share it.
        size = max(1, self.params.batch_size // processes)
        # A loader draws a random number when it is created, which a resumed run does at another time. With a generator
        # of its own, that does not change the training's random numbers.
        return DataLoader(samples, size, sampler=sampler, collate_fn=lambda batch: batch, generator=torch.Generator())
