"""Logits -> probabilities -> thresholds, both fitted to the validation split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from stages.inference.sidecar import decided


@dataclass(frozen=True)
class Calibration:
    """Probabilities are those of logits / temperature + bias.

    The temperature takes back overconfidence (Guo et al., "On Calibration of Modern Neural Networks", 2017), the bias
    what weighing the classes did to their shares. Neither changes a label's ranking of pictures in a binary or
    multilabel policy.
    """

    temperature: float = 1.0
    bias: tuple[float, ...] = (0.0,)
    """One an output, or one for all."""


def calibrated(logits: Tensor, kind: str, calibration: Calibration) -> Tensor:
    """Logits [n, outputs] -> probabilities [n, labels]; a binary policy's second column is 1 - the first."""
    adjusted = logits / calibration.temperature + logits.new_tensor(calibration.bias)
    if kind == "multiclass":
        return adjusted.softmax(1)
    scores = adjusted.sigmoid()
    return torch.cat([scores, 1 - scores], 1) if kind == "binary" else scores


def fit(logits: Tensor, labels: Tensor, kind: str) -> Calibration:
    """The calibration of least log-loss: logits [n, outputs], labels [n, labels].

    A weak pull towards the identity keeps it finite where a small split is told apart without a mistake.
    """
    logits, labels = logits.double(), labels.double()
    log_temperature = torch.zeros((), dtype=torch.double, requires_grad=True)
    bias = torch.zeros(logits.shape[1], dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        adjusted = logits / log_temperature.exp() + bias
        if kind == "multiclass":
            loss = functional.cross_entropy(adjusted, labels.argmax(1))
        else:
            loss = functional.binary_cross_entropy_with_logits(adjusted, labels[:, : logits.shape[1]])
        loss = loss + (log_temperature.square() + bias.square().sum()) / len(logits)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return Calibration(round(log_temperature.exp().item(), 6), tuple(round(each, 6) for each in bias.detach().tolist()))


def thresholds(
    scores: NDArray[np.float32],
    labels: NDArray[np.float32],
    kind: str,
    names: tuple[str, ...],
    objective: str,
    rate: float,
) -> dict[str, float]:
    """A threshold for each label that has one: scores and labels [n, labels].

    `objective` is `f1` (greatest F1), `false_positive_rate` (the lowest threshold that flags at most `rate` of the
    other pictures), or `recall` (the highest one that still finds `rate` of the label's pictures).
    """
    return {
        name: _threshold(scores[:, place].astype(float), labels[:, place] > 0.5, objective, rate)
        for place, name in enumerate(decided(kind, names))
    }


def _threshold(scores: NDArray[np.float64], truth: NDArray[np.bool_], objective: str, rate: float) -> float:
    """Of the cuts half-way between neighbouring scores, and one above all, the one that meets the objective best."""
    values = np.unique(scores)
    # The last is over 1 where a score is 1, or near it.
    cuts = np.r_[values[0] / 2, (values[1:] + values[:-1]) / 2, max((values[-1] + 1) / 2, values[-1] + 1e-5)]
    # A cut flags what is at or over it: count from above.
    found = truth.sum() - np.searchsorted(np.sort(scores[truth]), cuts)
    alarms = (~truth).sum() - np.searchsorted(np.sort(scores[~truth]), cuts)
    if objective == "false_positive_rate":
        best = np.argmax(alarms <= rate * (~truth).sum())
    elif objective == "recall":
        best = np.flatnonzero(found >= rate * truth.sum())[-1]
    else:
        best = np.argmax(2 * found / (truth.sum() + found + alarms))
    return _short(float(cuts[best]), values)


def _short(cut: float, values: NDArray[np.float64]) -> float:
    """The cut in 6 digits; or, where those flag others of the scores `values`, the lowest score that it flags."""
    over = values >= cut
    # Scores are of single precision, and so is whatever is compared with them.
    if ((values >= np.float32(round(cut, 6))) == over).all():
        return round(cut, 6)
    return float(values[over][0])
