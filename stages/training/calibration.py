"""Logits -> probabilities -> thresholds. Both are fitted to the validation pictures."""

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
    """Logits are calibrated as logits / temperature + bias, before the sigmoid or softmax.

    The temperature corrects overconfidence (Guo et al., "On Calibration of Modern Neural Networks", 2017). The bias
    corrects the shares of the classes, which class weights in the loss have shifted. In a binary or multilabel policy,
    neither changes how a label ranks pictures.
    """

    temperature: float = 1.0
    bias: tuple[float, ...] = (0.0,)
    """One per output, or one for all."""


def calibrated(logits: Tensor, kind: str, calibration: Calibration) -> Tensor:
    """Logits [n, outputs] -> probabilities [n, labels].

    A binary policy has one output; the second label's probability is 1 - the first.
    """
    adjusted = logits / calibration.temperature + logits.new_tensor(calibration.bias)
    if kind == "multiclass":
        return adjusted.softmax(1)
    scores = adjusted.sigmoid()
    return torch.cat([scores, 1 - scores], 1) if kind == "binary" else scores


def fit(logits: Tensor, labels: Tensor, kind: str) -> Calibration:
    """Fit the calibration with the least log-loss.

    Args:
        logits: [n, outputs].
        labels: [n, labels], 0 or 1.
        kind: of the policy.
    """
    logits, labels = logits.double(), labels.double()
    # The logarithm keeps the temperature positive.
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
        # A weak regularisation: if all pictures are classified correctly, the best temperature would be 0.
        loss = loss + (log_temperature.square() + bias.square().sum()) / len(logits)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return Calibration(round(log_temperature.exp().item(), 6), tuple(round(value, 6) for value in bias.tolist()))


def thresholds(
    scores: NDArray[np.float32],
    labels: NDArray[np.float32],
    kind: str,
    names: tuple[str, ...],
    objective: str,
    rate: float,
) -> dict[str, float]:
    """Choose a threshold for each label that has one.

    Args:
        scores: calibrated, [n, labels].
        labels: [n, labels], 0 or 1.
        kind: of the policy.
        names: of the labels.
        objective: `f1`: the threshold with the greatest F1. `false_positive_rate`: the lowest one that flags at most
            `rate` of the pictures without the label. `recall`: the highest one that still flags `rate` of those with
            it.
        rate: see `objective`; `f1` ignores it.
    """
    return {
        name: _threshold(scores[:, place].astype(float), labels[:, place] > 0.5, objective, rate)
        for place, name in enumerate(decided(kind, names))
    }


def _threshold(scores: NDArray[np.float64], truth: NDArray[np.bool_], objective: str, rate: float) -> float:
    """The best threshold for one label, given scores and truth [n].

    Candidates are halfway between neighbouring scores, below the lowest and above the highest: no others flag different
    pictures.
    """
    values = np.unique(scores)
    # The last candidate may be over 1, if the highest score is 1 or near it: then nothing is flagged.
    cuts = np.r_[values[0] / 2, (values[1:] + values[:-1]) / 2, max((values[-1] + 1) / 2, values[-1] + 1e-5)]
    # For all candidates at once: how many pictures of each kind have a score at or over the candidate.
    true_positives = truth.sum() - np.searchsorted(np.sort(scores[truth]), cuts)
    false_positives = (~truth).sum() - np.searchsorted(np.sort(scores[~truth]), cuts)
    if objective == "false_positive_rate":
        best = np.argmax(false_positives <= rate * (~truth).sum())  # the first, lowest one
    elif objective == "recall":
        best = np.flatnonzero(true_positives >= rate * truth.sum())[-1]
    else:
        best = np.argmax(2 * true_positives / (truth.sum() + true_positives + false_positives))
    return _rounded(float(cuts[best]), values)


def _rounded(cut: float, values: NDArray[np.float64]) -> float:
    """A threshold in 6 decimals; if that would flag other scores of `values`, the lowest score that it flags."""
    over = values >= cut
    # Scores are float32, so numpy rounds a threshold to float32 before it compares.
    if ((values >= np.float32(round(cut, 6))) == over).all():
        return round(cut, 6)
    return float(values[over][0])
