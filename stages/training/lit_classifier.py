"""How a network learns: losses, class weights, learning-rate schedule, validation metrics."""

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

MONITORED = "average_precision"
"""The validation metric for early stopping and for the best checkpoint."""
LEAST_WEIGHT = 1e-6
"""Lower bound of the divisor, for a head that learns from no picture of a batch."""
MOST_WEIGHT = 20.0
"""Upper bound of a class weight, or a rare class's few pictures would dominate the training."""


class LitClassifier(pl.LightningModule):
    """Trains a network that returns logits of labels [n, heads, outputs] and of tags [n, heads, tags]."""

    def __init__(self, network: nn.Module, task: Task, params: Train) -> None:
        super().__init__()
        self.network = network
        self.kind = task.kind
        self.params = params
        self.weights: Tensor
        self.register_buffer("weights", class_weights(task, params.balance), persistent=False)
        self.scores = MetricCollection(ranking_metrics(task.kind, len(task.labels)))

    def on_train_epoch_start(self) -> None:
        # A seed per epoch, so that a resumed run draws the same random numbers as an uninterrupted one.
        torch.manual_seed(self.params.seed + 1_000_003 * (self.current_epoch + 1) + self.global_rank)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        inputs, labels, tags, heads = batch
        logits, tag_logits = self.network(inputs)
        loss = self.loss(logits, labels, heads)
        if self.params.model.tag_loss and tags.shape[1]:
            loss = loss + self.params.model.tag_loss * tag_loss(tag_logits, tags, heads)
        self._check(loss.sum())
        self.log("loss_train", loss.mean(), on_step=False, on_epoch=True, sync_dist=True, batch_size=len(inputs))
        return loss.sum()  # and not the mean: heads share no weights, so each learns as if it were alone

    def validation_step(self, batch: Batch, _: int) -> None:
        inputs, labels, _tags, heads = batch
        logits = out_of_fold(self.network(inputs)[0], heads)
        loss = self.loss(logits[:, None], labels, heads.new_ones(len(inputs), 1)).sum()
        self._check(loss)
        self.scores.update(*metric_inputs(self.kind, logits.float(), labels))
        self.log("loss_val", loss, sync_dist=True, batch_size=len(inputs))

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.scores.compute(), prog_bar=True)
        self.scores.reset()

    def loss(self, logits: Tensor, labels: Tensor, heads: Tensor) -> Tensor:
        """Each head's loss on the labels, weighted by class and averaged over the pictures that it learns from.

        Args:
            logits: [n, heads, outputs].
            labels: [n, labels], 0 or 1.
            heads: [n, heads], 1 for each head that learns from the picture, else 0.

        Returns:
            [heads].
        """
        if self.kind == "multiclass":
            classes = labels.argmax(1)
            targets = classes[:, None].expand(heads.shape)
            losses = functional.cross_entropy(logits.mT, targets, weight=self.weights, reduction="none")
            counted = heads * self.weights[classes, None]  # a weighted mean, as torch's own reduction
        else:
            # A binary policy has one output, for the first label.
            targets = labels[:, None, : logits.shape[2]].expand_as(logits)
            losses = functional.binary_cross_entropy_with_logits(
                logits, targets, pos_weight=self.weights, reduction="none"
            ).mean(2)
            counted = heads
        return (losses * heads).sum(0) / counted.sum(0).clamp(min=LEAST_WEIGHT)

    def _check(self, loss: Tensor) -> None:
        if not math.isfinite(loss.item()):
            raise ModelError(
                f"the loss became {loss.item()} in epoch {self.current_epoch}: lower train.lr (it is "
                f"{self.params.lr:g}), raise train.warmup, or set train.precision=32-true"
            )

    def configure_optimizers(self) -> Any:
        parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=self.params.lr, weight_decay=self.params.weight_decay, fused=True)
        steps = cast(int, self.trainer.estimated_stepping_batches)
        warmup = self.params.warmup
        if warmup * steps == 1:
            # OneCycleLR divides by the steps between the first one and the peak, warmup * steps - 1.
            warmup *= 1 + 1e-9
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.params.lr, steps, pct_start=warmup, cycle_momentum=False
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def tag_loss(logits: Tensor, tags: Tensor, heads: Tensor) -> Tensor:
    """Each head's loss on the auxiliary targets.

    It is summed over tags and averaged over pictures. Averaged over tags, a picture's few tags would vanish among the
    thousands that it does not have.

    Args:
        logits: [n, heads, tags].
        tags: [n, tags], 0 or 1.
        heads: [n, heads], 1 for each head that learns from the picture, else 0.

    Returns:
        [heads].
    """
    targets = tags[:, None].expand_as(logits)
    losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(2)
    return (losses * heads).sum(0) / heads.sum(0).clamp(min=LEAST_WEIGHT)


def out_of_fold(logits: Tensor, heads: Tensor) -> Tensor:
    """Each picture's logits [n, outputs] from the head that has not learnt from it.

    Args:
        logits: [n, heads, outputs].
        heads: [n, heads], 1 for each head that scores the picture, else 0. Of several, the mean is taken.
    """
    return (logits * heads[..., None]).sum(1) / heads.sum(1, keepdim=True)


def class_weights(task: Task, balance: bool) -> Tensor:
    """Weights in the loss, by inverse frequency in the training examples; ones without `balance`.

    Returns:
        Of a multiclass policy each class's weight [labels], else the weight of positives against negatives [outputs].
    """
    labels = torch.from_numpy(task.train.labels)
    counts = labels.sum(0)
    if task.kind == "multiclass":
        weights = len(labels) / (len(counts) * counts)
    else:
        weights = ((len(labels) - counts) / counts)[: task.outputs]
    return weights.clamp(1 / MOST_WEIGHT, MOST_WEIGHT) if balance else torch.ones_like(weights)


def metric_inputs(kind: str, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [n, outputs] and labels [n, labels] -> scores and targets in torchmetrics' form for a kind of policy."""
    scores = calibrated(logits, kind, Calibration())
    if kind == "binary":
        return scores[:, 0], labels[:, 0].int()
    return scores, labels.argmax(1) if kind == "multiclass" else labels.int()


def ranking_metrics(kind: str, labels: int) -> dict[str, Metric | MetricCollection]:
    """Metrics that need no threshold; with several labels, averaged over them."""
    if kind == "binary":
        return {MONITORED: BinaryAveragePrecision(), "auroc": BinaryAUROC()}
    if kind == "multiclass":
        return {MONITORED: MulticlassAveragePrecision(labels), "auroc": MulticlassAUROC(labels)}
    return {MONITORED: MultilabelAveragePrecision(labels), "auroc": MultilabelAUROC(labels)}
