"""Trains a network with Lightning, in a cache folder from which a killed run resumes."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import logging
import shutil
import sys
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytorch_lightning as pl
import torch
from dvclive.lightning import DVCLiveLogger
from filelock import FileLock
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_only
from torch import nn

from stages.config.train import Train
from stages.dataset.targets import Task
from stages.training.batches import DataModule
from stages.training.epoch_log import EpochLog
from stages.training.lit_classifier import MONITORED, LitClassifier
from stages.training.networks import Architecture
from stages.workspace import cache
from stages.workspace.cache import cache_root
from stages.workspace.errors import ModelError

log = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of mallopt(3), from glibc's malloc.h."""


def seed_everything(params: Train) -> None:
    """Fix the seed and the number of CPU threads, so that a run is bit-for-bit repeatable on one machine."""
    torch.set_num_threads(params.threads)
    pl.seed_everything(params.seed, verbose=False)


def architecture(params: Train, task: Task) -> Architecture:
    """The network that the parameters describe for a task."""
    fields = {field.name for field in dataclasses.fields(Architecture)}
    model = {name: value for name, value in dataclasses.asdict(params.model).items() if name in fields}
    tags = len(task.vocabulary) if params.model.tag_loss else 0
    return Architecture(size=params.size, outputs=task.outputs, tags=tags, **model)


@contextmanager
def resume_folder(params: Train, *revisions: object) -> Iterator[Path]:
    """A cache folder for the checkpoints of this training. It is deleted when the block ends without an error.

    A second run of the same training waits for the first one.

    Args:
        params: part of the folder's key.
        revisions: data and code, the rest of the key: a run resumes only if all of it is unchanged.
    """
    folder = cache_root() / "training" / cache.key(dataclasses.asdict(params), *revisions)
    folder.mkdir(parents=True, exist_ok=True)
    if rank_zero_only.rank:  # type: ignore[attr-defined] # the first process of a run holds the lock for all of them
        yield folder
        return
    with FileLock(f"{folder}.lock"):
        folder.mkdir(exist_ok=True)  # the run that was waited for has deleted it
        yield folder
        shutil.rmtree(folder)


def fit(network: nn.Module, task: Task, data: DataModule, params: Train, folder: Path) -> tuple[pl.Trainer, int]:
    """Train a network, or resume from the checkpoints in `folder`.

    Afterwards `network` has the weights of the best epoch.

    Args:
        network: the trainable part.
        task: what is learnt.
        data: its batches.
        params: how it is trained.
        folder: from `resume_folder`.

    Returns:
        The trainer, and the number of epochs.

    Raises:
        ModelError: if the loss becomes infinite or NaN, or this machine lacks the devices that `params` name.
    """
    keep_freed_memory()
    classifier = LitClassifier(network, task, params)
    last, done = folder / "last.ckpt", folder / "done"
    empty_if_damaged(folder)
    early_stopping = EarlyStopping(MONITORED, mode="max", patience=params.patience)
    keep_best = ModelCheckpoint(folder, "best", monitor=MONITORED, mode="max", enable_version_counter=False)
    # After `keep_best`: last.ckpt holds the callbacks' state, and must know if this epoch is the best one.
    keep_last = ModelCheckpoint(folder, "last", enable_version_counter=False)
    trainer = _trainer(params, folder, [early_stopping, keep_best, keep_last, EpochLog()])
    if not done.exists():  # it exists if a run was killed after the training
        if last.exists():
            log.info("resuming from epoch %d", torch.load(last, weights_only=True)["epoch"] + 1)
        try:
            trainer.fit(classifier, data, ckpt_path=last if last.exists() else None, weights_only=True)
        except SystemExit as error:
            if isinstance(error.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into an exit
                raise KeyboardInterrupt from error
            raise
        if trainer.is_global_zero:
            done.touch()
    epochs = int(torch.load(last, weights_only=True)["epoch"]) + 1
    classifier.load_state_dict(torch.load(folder / "best.ckpt", weights_only=True)["state_dict"])
    return trainer, epochs


def empty_if_damaged(folder: Path) -> None:
    """Empty a folder of checkpoints if one of them is damaged, so that the training begins anew."""
    for file in sorted(folder.glob("*.ckpt")):
        if _is_damaged(file):
            log.warning("the checkpoint %s is damaged; the training begins anew", file)
            shutil.rmtree(folder)
            folder.mkdir()
            return


def _is_damaged(checkpoint: Path) -> bool:
    """Whether a file that torch wrote is not whole: it is a zip archive, whose members have checksums."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return archive.testzip() is not None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError):
        return True


def keep_freed_memory() -> None:
    """Make malloc keep freed memory for the next training step. Returning it to the system takes a third of a step.

    Source: mallopt(3), M_MMAP_MAX and M_TRIM_THRESHOLD. Without glibc it has no effect.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


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
            precision=params.precision,
            max_epochs=params.epochs,
            callbacks=callbacks,
            logger=live,
            default_root_dir=folder,
            deterministic="warn",  # some operations have no deterministic version on a GPU
            enable_model_summary=False,
            enable_progress_bar=sys.stderr.isatty(),
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # the data module has one of its own
        )
    except Exception as error:  # Lightning has several classes for an unknown or absent accelerator, strategy, ...
        raise ModelError(
            f"train.accelerator={params.accelerator}, devices={params.devices}, strategy={params.strategy}, "
            f"precision={params.precision} cannot be used here: {error}"
        ) from error


def save_checkpoint(
    path: Path, network: nn.Module, architecture: Architecture, features: int, labels: tuple[str, ...]
) -> None:
    """Write everything from which the network can be rebuilt, in a form that torch reads with `weights_only`.

    Args:
        path: the file to write.
        network: the trainable part.
        architecture: of the whole network.
        features: see `networks.trainable_part`.
        labels: names of the outputs.
    """
    checkpoint = {
        "labels": list(labels),
        "architecture": dataclasses.asdict(architecture),
        "features": features,
        "state_dict": network.state_dict(),
    }
    # Not by its path: torch would write the file's name, which is a temporary one, into the file.
    with path.open("wb") as file:
        torch.save(checkpoint, file)


def copy_curves(folder: Path, target: Path) -> None:
    """Copy DVCLive's curves, a .tsv per metric.

    A run that resumed may have logged a step twice: only the later row is copied.
    """
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted((folder / "live/plots/metrics").glob("*.tsv")):
        if file.stem != "epoch":
            header, *rows = file.read_text().splitlines()
            last_rows = {row.split("\t")[0]: row for row in rows}.values()
            (target / file.name).write_text("\n".join([header, *last_rows]) + "\n")
