"""How a network learns: losses, class balance, rate schedule, scores on the validation split."""

from __future__ import annotations

import math
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    BinaryAUROC,
    BinaryAveragePrecision,
    MulticlassAUROC,
    MulticlassAveragePrecision,
    MultilabelAUROC,
    MultilabelAveragePrecision,
)

from stages.config.train import Train
from stages.dataset.targets import Task
from stages.training.batches import Batch
from stages.training.calibration import Calibration, calibrated
from stages.workspace.errors import ModelError

WATCHED = "average_precision"
"""The validation score that decides which epoch is kept, and when to stop."""
LEAST_WEIGHT = 1e-6
"""Of a member's pictures in a batch: a member with none must not divide by nothing."""
MOST_WEIGHT = 20.0
"""A rarer class is not weighed more than this, or single pictures would steer the training."""


class Learner(pl.LightningModule):
    """Trains a network that gives logits of labels and tags."""

    def __init__(self, network: nn.Module, task: Task, params: Train) -> None:
        super().__init__()
        self.network = network
        self.kind = task.kind
        self.params = params
        self.weights: Tensor
        self.register_buffer("weights", class_weights(task, params.balance), persistent=False)
        self.scores = MetricCollection(ranking_metrics(task.kind, len(task.labels)))

    def on_train_epoch_start(self) -> None:
        # So that a resumed run draws the numbers that an undisturbed one would.
        torch.manual_seed(self.params.seed + 1_000_003 * (self.current_epoch + 1) + self.global_rank)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        inputs, labels, tags, members = batch
        logits, tag_logits = self.network(inputs)
        loss = self.loss(logits, labels, members)
        if self.params.model.tag_loss and tags.shape[1]:
            loss = loss + self.params.model.tag_loss * tag_loss(tag_logits, tags, members)
        self._check(loss.sum())
        self.log("loss_train", loss.mean(), on_step=False, on_epoch=True, sync_dist=True, batch_size=len(inputs))
        return loss.sum()  # so that each member learns as it would by itself

    def validation_step(self, batch: Batch, _: int) -> None:
        inputs, labels, _tags, members = batch
        logits = judged(self.network(inputs)[0], members)
        loss = self.loss(logits[:, None], labels, members.new_ones(len(inputs), 1)).sum()
        self._check(loss)
        scores, truth = ranked(self.kind, logits.float(), labels)
        self.scores.update(scores, truth)
        self.log("loss_val", loss, sync_dist=True, batch_size=len(inputs))

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.scores.compute(), prog_bar=True)
        self.scores.reset()

    def loss(self, logits: Tensor, labels: Tensor, members: Tensor) -> Tensor:
        """Of the labels, weighed by class: logits [n, members, outputs], labels [n, labels], members [n, members].

        Returns:
            [members], averaged over each one's pictures.
        """
        if self.kind == "multiclass":
            classes = labels.argmax(1)
            targets = classes[:, None].expand(members.shape)
            losses = functional.cross_entropy(logits.mT, targets, weight=self.weights, reduction="none")
            counted = members * self.weights[classes, None]
        else:
            targets = labels[:, None, : logits.shape[2]].expand_as(logits)
            losses = functional.binary_cross_entropy_with_logits(
                logits, targets, pos_weight=self.weights, reduction="none"
            ).mean(2)
            counted = members
        return (losses * members).sum(0) / counted.sum(0).clamp(min=LEAST_WEIGHT)

    def _check(self, loss: Tensor) -> None:
        if not math.isfinite(loss.item()):
            raise ModelError(
                f"the loss became {loss.item()} in epoch {self.current_epoch}: lower train.lr (it is "
                f"{self.params.lr:g}), raise train.warmup, or set train.precision=32-true"
            )

    def configure_optimizers(self) -> Any:
        trained = [each for each in self.network.parameters() if each.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.params.lr, weight_decay=self.params.weight_decay, fused=True)
        steps = cast(int, self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.params.lr, steps, pct_start=self.params.warmup, cycle_momentum=False
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def tag_loss(logits: Tensor, tags: Tensor, members: Tensor) -> Tensor:
    """Of the tags: logits [n, members, tags], tags [n, tags], members [n, members] -> [members].

    Summed over tags, averaged over pictures: a picture's few tags must not vanish among thousands of others.
    """
    targets = tags[:, None].expand_as(logits)
    losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(2)
    return (losses * members).sum(0) / members.sum(0).clamp(min=LEAST_WEIGHT)


def judged(logits: Tensor, members: Tensor) -> Tensor:
    """Each picture's logits [n, outputs], averaged over those members [n, members] that judge it."""
    return (logits * members[..., None]).sum(1) / members.sum(1, keepdim=True)


def class_weights(task: Task, balance: bool) -> Tensor:
    """Weights in the loss: of a label's positives against its negatives, or of each label if multiclass."""
    labels = torch.from_numpy(task.train.labels)
    counts = labels.sum(0)
    if task.kind == "multiclass":
        weights = len(labels) / (len(counts) * counts)
    else:
        weights = ((len(labels) - counts) / counts)[: task.outputs]
    return weights.clamp(1 / MOST_WEIGHT, MOST_WEIGHT) if balance else torch.ones_like(weights)


def ranked(kind: str, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and truth as torchmetrics takes them for this kind of policy."""
    scores = calibrated(logits, kind, Calibration())
    if kind == "binary":
        return scores[:, 0], labels[:, 0].int()
    return scores, labels.argmax(1) if kind == "multiclass" else labels.int()


def ranking_metrics(kind: str, labels: int) -> dict[str, Metric | MetricCollection]:
    """Scores that need no threshold; averaged over labels where there are several."""
    if kind == "binary":
        return {WATCHED: BinaryAveragePrecision(), "auroc": BinaryAUROC()}
    if kind == "multiclass":
        return {WATCHED: MulticlassAveragePrecision(labels), "auroc": MulticlassAUROC(labels)}
    return {WATCHED: MultilabelAveragePrecision(labels), "auroc": MultilabelAUROC(labels)}
