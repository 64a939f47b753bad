"""Fitting a network, in a folder of the cache that a killed run is resumed from."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import logging
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from dvclive.lightning import DVCLiveLogger
from filelock import FileLock
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_only
from torch import nn

from stages.config.train import Train
from stages.dataset.arrays import Ids, Rows
from stages.dataset.targets import Task
from stages.training.batches import Data
from stages.training.learner import WATCHED, Learner
from stages.training.networks import Architecture, Head
from stages.workspace import cache
from stages.workspace.cache import cache_root
from stages.workspace.errors import ModelError

log = logging.getLogger(__name__)


def repeatable(params: Train) -> None:
    """Fix the seed and the number of CPU threads, so that a run is bit-for-bit repeatable on one machine."""
    torch.set_num_threads(params.threads)
    pl.seed_everything(params.seed, verbose=False)


def architecture(params: Train, task: Task) -> Architecture:
    """The network that the parameters describe for a task."""
    known = {each.name for each in dataclasses.fields(Architecture)}
    model = {name: value for name, value in dataclasses.asdict(params.model).items() if name in known}
    tags = len(task.vocabulary) if params.model.tag_loss else 0
    return Architecture(size=params.size, outputs=task.outputs, tags=tags, **model)


def standardise(network: nn.Module, rows: Rows, ids: Ids) -> None:
    """Fit a head's centre and scale to the features of the training pictures; other networks have none."""
    if isinstance(network, Head):
        network.standardise(torch.from_numpy(rows.take(ids)))


def save(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint in torch's format, which is read with `weights_only`."""
    torch.save(checkpoint, path)


@contextmanager
def workplace(params: Train, *revisions: object) -> Iterator[Path]:
    """A folder for this very training: of the same parameters, data and code. It is gone when the block ends well.

    A second run of the same training waits for the first.
    """
    folder = cache_root() / "training" / cache.key(dataclasses.asdict(params), *revisions)
    folder.mkdir(parents=True, exist_ok=True)
    if rank_zero_only.rank:  # type: ignore[attr-defined] # the first process holds the lock for all of the run
        yield folder
        return
    with FileLock(f"{folder}.lock"):
        folder.mkdir(exist_ok=True)
        yield folder
        shutil.rmtree(folder)


def fit(network: nn.Module, task: Task, data: Data, params: Train, folder: Path) -> tuple[pl.Trainer, int]:
    """Train, going on from what `folder` holds; leaves `network` with the weights of the best epoch.

    Returns:
        The trainer, and how many epochs were trained.

    Raises:
        ModelError: if the loss is no longer a number, or this machine lacks the devices that the parameters name.
    """
    keep_memory()
    learner = Learner(network, task, params)
    last, done = folder / "last.ckpt", folder / "done"
    stop = EarlyStopping(WATCHED, mode="max", patience=params.patience)
    best = ModelCheckpoint(folder, "best", monitor=WATCHED, mode="max", enable_version_counter=False)
    # In this order: what is resumed from knows the best epoch, be it the last one itself.
    each = ModelCheckpoint(folder, "last", enable_version_counter=False)
    trainer = _trainer(params, folder, [stop, best, each])
    if not done.exists():
        if last.exists():
            log.info("resuming from epoch %d", torch.load(last, weights_only=True)["epoch"] + 1)
        try:
            trainer.fit(learner, data, ckpt_path=last if last.exists() else None, weights_only=True)
        except SystemExit as left:
            if isinstance(left.__context__, KeyboardInterrupt):  # Lightning makes an exit code of its own of Ctrl-C
                raise KeyboardInterrupt from left
            raise
        if trainer.is_global_zero:
            done.touch()
    epochs = int(torch.load(last, weights_only=True)["epoch"]) + 1
    learner.load_state_dict(torch.load(folder / "best.ckpt", weights_only=True)["state_dict"])
    return trainer, epochs


def keep_memory() -> None:
    """Have glibc keep the memory of one training step for the next: handing it back and forth costs a third of a step.

    Source: mallopt(3), M_MMAP_MAX and M_TRIM_THRESHOLD. Elsewhere than on glibc nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-4, 0)
        mallopt(-1, 2**31 - 1)


def _trainer(params: Train, folder: Path, callbacks: list[pl.Callback]) -> pl.Trainer:
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("dvclive").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")  # advice on loaders, folders and logging intervals
    live = DVCLiveLogger(
        dir=str(folder / "live"), resume=(folder / "last.ckpt").exists(), dvcyaml=None, save_dvc_exp=False
    )
    try:
        return pl.Trainer(
            accelerator=params.accelerator,
            devices=params.devices,
            num_nodes=params.num_nodes,
            strategy=params.strategy,
            precision=params.precision,  # type: ignore[arg-type] # checked by Lightning
            max_epochs=params.epochs,
            callbacks=callbacks,
            logger=live,
            default_root_dir=folder,
            deterministic="warn",
            enable_model_summary=False,
            enable_progress_bar=sys.stderr.isatty(),
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
    except Exception as error:  # Lightning has several classes for an unknown or absent accelerator, strategy, ...
        raise ModelError(
            f"train.accelerator={params.accelerator}, devices={params.devices}, strategy={params.strategy}, "
            f"precision={params.precision} cannot be used here: {error}"
        ) from error


def curves(folder: Path, target: Path) -> None:
    """Copy DVCLive's curves, a .tsv a metric; of a step that a resumed run took twice, the later row."""
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted((folder / "live/plots/metrics").glob("*.tsv")):
        if file.stem != "epoch":
            head, *rows = file.read_text().splitlines()
            (target / file.name).write_text(
                "\n".join([head, *{row.split("\t")[0]: row for row in rows}.values()]) + "\n"
            )
