"""A log line an epoch, where there is no terminal for a progress bar."""

from __future__ import annotations

import logging
import sys
import time
from datetime import timedelta

import pytorch_lightning as pl

log = logging.getLogger(__name__)


class EpochLog(pl.Callback):
    """Logs each epoch's number, losses and metrics, and the time left, which early stopping may shorten."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._first, self._started = trainer.current_epoch, time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero and not sys.stderr.isatty():
            epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs or 0
            each = (time.monotonic() - self._started) / (epoch - self._first)
            left = timedelta(seconds=round((epochs - epoch) * each))
            values = ", ".join(f"{name} {float(value):.4g}" for name, value in sorted(trainer.callback_metrics.items()))
            log.info("train: epoch %d of %d, %s, %.1f s each, at most %s left", epoch, epochs, values, each, left)
