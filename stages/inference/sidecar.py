"""A model's side-car: the JSON file with the labels, thresholds and preprocessing that belong to its scores.

It also records where the model comes from (policy, data, code, parameters, metrics). No torch, no pandas.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from stages.workspace.errors import ModelError
from stages.workspace.files import replacing

FORMAT = 1
"""Version of the file's layout."""
NONE = "none"
"""Verdict of a multilabel model when no label reaches its threshold."""

Kind = Literal["binary", "multiclass", "multilabel"]
GraphPrecision = Literal["fp32", "int8"]
"""Number format of a graph's convolutions: 32-bit floats, or 8-bit integers."""


def decided(kind: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    """The labels that have a threshold: all of a multilabel policy; of others all but the last, the harmless one."""
    return labels if kind == "multilabel" else labels[:-1]


@dataclass(frozen=True)
class Sidecar:
    """The contents of `models/moderator.json`."""

    name: str
    """Of the policy."""
    kind: Kind
    labels: tuple[str, ...]
    """In the order of the scores' columns. The last one of a binary or multiclass policy is the harmless one."""
    size: int
    """Side of the graph's square input picture, in px."""
    background: int
    """Grey level (0 to 255) behind transparent parts and in the letterbox's borders."""
    thresholds: dict[str, float]
    """Label -> lowest calibrated score with which a picture gets it; one for each of `decided`."""
    calibration: dict[str, Any]
    """How the graph turns logits into probabilities (`temperature`, `bias`), and what the thresholds were chosen for
    (`threshold_objective`, `target_rate`)."""
    policy: dict[str, Any]
    """Name, kind and labels, from the splits' metadata."""
    data: dict[str, str]
    """Split -> md5 of its parquet file, as in `dvc.lock`."""
    code: str
    """The commit that last changed the training code; with a + if there are uncommitted changes."""
    params: dict[str, Any]
    """The `train` section of `params.yaml`."""
    metrics: dict[str, float]
    """On the validation pictures; of an ensemble, from out-of-fold scores."""
    precision: GraphPrecision = "fp32"
    """Of the graph that is served."""
    auroc: dict[str, float] = field(default_factory=dict)
    """Precision -> validation AUROC, for each graph that was tried."""
    origins: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The collections that the training pictures are from, by their `origin:` tags -> `pictures`, their number, and
    `licences`, by their `licence:` tags."""
    resize: str = "letterbox"
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT or self.resize != "letterbox":
            raise ModelError(
                f"the side-car has format {self.format} and resize rule {self.resize}, this code reads format {FORMAT} "
                "and letterbox; use the code that trained the model, or train again with `dvc repro train`"
            )
        if set(self.thresholds) != set(decided(self.kind, self.labels)):
            raise ModelError(
                f"the side-car's thresholds are for {sorted(self.thresholds)}, its labels are {list(self.labels)}; "
                "train again with `dvc repro train`"
            )

    @classmethod
    def read(cls, path: Path) -> Sidecar:
        """Read a side-car.

        Raises:
            ModelError: if the file is missing, is not JSON, or has another layout.
        """
        try:
            values = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise ModelError(
                f"no side-car {path}; make one with `dvc repro train`, or get it with `dvc pull`"
            ) from None
        except (OSError, ValueError) as error:
            raise ModelError(f"the side-car {path} cannot be read ({error}); restore it with `dvc checkout`") from error
        try:
            # Unknown keys are a TypeError: a side-car of newer code must not be read by older code.
            return cls(**{**values, "labels": tuple(values["labels"])})
        except (TypeError, KeyError) as error:
            raise ModelError(
                f"{path} is no side-car of this code's format {FORMAT} ({error}); train again with `dvc repro train`"
            ) from error

    def write(self, path: Path) -> None:
        """Write the file; equal content gives equal bytes."""
        with replacing(path) as aside:
            aside.write_text(
                json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )


def _over_threshold(scores: Mapping[str, float], sidecar: Sidecar) -> list[str]:
    """The labels whose scores are at or over their thresholds, in the model's order."""
    labels = decided(sidecar.kind, sidecar.labels)
    return [label for label in labels if scores[label] >= sidecar.thresholds[label]]


def deciding_label(scores: Mapping[str, float], sidecar: Sidecar) -> str:
    """The highest scored label of those at or over their thresholds; if there is none, of all that have a threshold."""
    candidates = _over_threshold(scores, sidecar) or decided(sidecar.kind, sidecar.labels)
    return max(candidates, key=scores.__getitem__)


def verdict(scores: Mapping[str, float], sidecar: Sidecar) -> str:
    """The model's decision on a picture with these scores.

    Binary and multiclass: the highest scored label of those at or over their thresholds, or the harmless last label if
    there is none. Multilabel: all labels at or over their thresholds, joined with "+" in the model's order, or "none".
    """
    over = _over_threshold(scores, sidecar)
    if sidecar.kind == "multilabel":
        return "+".join(over) or NONE
    return max(over, key=scores.__getitem__) if over else sidecar.labels[-1]
