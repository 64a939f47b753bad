"""The side-car of a model: the conventions that its scores cannot be read without. No torch, no pandas."""

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
"""Verdict of a multilabel model that finds no label."""

Kind = Literal["binary", "multiclass", "multilabel"]
Precision = Literal["fp32", "int8"]


def decided(kind: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    """The labels that have a threshold: all, but in a binary or multiclass policy not the last, harmless one."""
    return labels if kind == "multilabel" else labels[:-1]


@dataclass(frozen=True)
class Sidecar:
    """What `models/moderator.json` holds."""

    name: str
    """Of the policy."""
    kind: Kind
    labels: tuple[str, ...]
    """In the order of the scores' columns. In a binary or multiclass policy the last is the harmless one."""
    size: int
    """Side of the square picture that the graph takes, in px."""
    background: int
    """Grey (0 to 255) behind transparent parts and in the letterbox's borders."""
    thresholds: dict[str, float]
    """Score from which a label is given, on the calibrated scores of the graph; one for each of `decided`."""
    calibration: dict[str, Any]
    """What the graph does to the network's logits so that scores are probabilities: `temperature`, `bias`; and
    the goal that the thresholds were chosen for."""
    policy: dict[str, Any]
    """As the splits' metadata give it."""
    data: dict[str, str]
    """Split -> md5 of its parquet file, as in `dvc.lock`."""
    code: str
    """The commit that last changed the training code; a + behind it: changed since."""
    params: dict[str, Any]
    """The `train` section it was trained with."""
    metrics: dict[str, float]
    """On the validation pictures, each scored by members that have not learnt from it."""
    precision: Precision = "fp32"
    """Of the graph's convolutions."""
    auroc: dict[str, float] = field(default_factory=dict)
    """Precision -> validation AUROC of its graph, of each that was tried."""
    resize: str = "letterbox"
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT or self.resize != "letterbox":
            raise ModelError(
                f"the side-car has format {self.format} and resize rule {self.resize}, this code reads format {FORMAT} "
                "and letterbox; use the code that trained the model, or train anew"
            )
        if set(self.thresholds) != set(decided(self.kind, self.labels)):
            raise ModelError(
                f"the side-car's thresholds are for {sorted(self.thresholds)}, its labels are {list(self.labels)}; "
                "train anew with `dvc repro train`"
            )

    @classmethod
    def read(cls, path: Path) -> Sidecar:
        """Read a side-car.

        Raises:
            ModelError: if the file is missing, no JSON, or of another layout.
        """
        try:
            values = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise ModelError(
                f"no side-car {path}; make one with `dvc repro train`, or get it with `dvc pull`"
            ) from None
        except (OSError, ValueError) as error:
            raise ModelError(
                f"the side-car {path} cannot be read ({error}); get it anew with `dvc checkout`"
            ) from error
        try:
            return cls(**{**values, "labels": tuple(values["labels"])})
        except (TypeError, KeyError) as error:
            raise ModelError(f"{path} is no side-car of this code's format {FORMAT} ({error}); train anew") from error

    def write(self, path: Path) -> None:
        """Write it as JSON; equal content gives equal bytes."""
        with replacing(path) as aside:
            aside.write_text(
                json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )


def leading(scores: Mapping[str, float], sidecar: Sidecar) -> str:
    """The label that decides: of those at or over their thresholds, else of all that have one, the highest scored."""
    ruled = decided(sidecar.kind, sidecar.labels)
    over = [label for label in ruled if scores[label] >= sidecar.thresholds[label]]
    return max(over or ruled, key=scores.__getitem__)


def verdict(scores: Mapping[str, float], sidecar: Sidecar) -> str:
    """What a picture with these scores is.

    Binary and multiclass: the highest scored label of those at or over their thresholds, the harmless last one never
    counted; if there is none, the last label. Multilabel: all labels at or over their thresholds, joined with "+" in
    the model's order, or "none".
    """
    ruled = decided(sidecar.kind, sidecar.labels)
    over = [label for label in ruled if scores[label] >= sidecar.thresholds[label]]
    if sidecar.kind == "multilabel":
        return "+".join(over) or NONE
    return max(over, key=scores.__getitem__) if over else sidecar.labels[-1]
