"""The one way that a trained model is asked, by the test stage and the bot alike: ONNX Runtime, Pillow and numpy.

`python -m stages.inference.predictor PICTURE... [--json]` prints a line of label, score and verdict for each picture.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.inference.decoding import Caps, Pixels, pixels
from stages.inference.runtime import session
from stages.inference.sidecar import Sidecar, leading, verdict
from stages.workspace import paths
from stages.workspace.errors import ModelError, PictureError, run

BATCH = 16
"""Pictures scored in one go: more would only cost memory."""
CAPS = Caps()


@dataclass(frozen=True)
class Judgement:
    """What the model says of one picture."""

    verdict: str
    """A label, several joined with "+", "none"; or `corrupt` or `too_large` for a picture that cannot be judged."""
    label: str = ""
    """The label that decided: the highest scored one over its threshold, else the one that came first below."""
    score: float = 0.0
    """Probability of `label`."""
    scores: dict[str, float] = field(default_factory=dict)
    """Probability of every label; empty for a picture that cannot be judged."""
    detail: str = ""
    """Why it cannot be judged."""


class Predictor:
    """A loaded, warmed-up model. Safe to share between threads."""

    def __init__(
        self, model: Path = paths.MODEL, sidecar: Path | None = None, threads: int = 1, caps: Caps = CAPS
    ) -> None:
        """Load `model` and its side-car (by default the .json beside it).

        Raises:
            ModelError: if either is missing or broken, or they do not belong together.
        """
        self.sidecar = Sidecar.read(sidecar or model.with_suffix(".json"))
        self._caps = caps
        self._session = session(model, threads)
        self._check(model)
        size = self.sidecar.size
        self.score(np.zeros((1, size, size, 3), np.uint8))  # the first run allocates and would be slow for its asker

    def _check(self, model: Path) -> None:
        """A label list bound to a model by order alone would be read wrongly one day: the graph names its labels."""
        labels = json.loads(self._session.get_modelmeta().custom_metadata_map.get("labels", "null"))
        if labels != list(self.sidecar.labels):
            raise ModelError(
                f"{model} scores {labels}, its side-car names {list(self.sidecar.labels)}: not of one training; "
                "get both with `dvc checkout models/moderator.onnx models/moderator.json`"
            )
        shape = self._session.get_inputs()[0].shape
        if shape[1:] != [self.sidecar.size, self.sidecar.size, 3]:
            raise ModelError(f"{model} takes pictures of {shape[1:]}, its side-car says {self.sidecar.size} px")

    def score(self, pictures: Pixels) -> NDArray[np.float32]:
        """Probabilities of the labels.

        Args:
            pictures: uint8 [n, size, size, 3], RGB, as `stages.inference.decoding.pixels` makes them.

        Returns:
            float32 [n, labels], in the side-car's order. Rows of binary and multiclass models sum to 1.
        """
        parts = [
            self._session.run(["scores"], {"pixels": pictures[start : start + BATCH]})[0]
            for start in range(0, len(pictures), BATCH)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(self.sidecar.labels)), np.float32)

    def judge(self, pictures: Sequence[bytes]) -> list[Judgement]:
        """Judge encoded pictures, hostile ones too: what cannot be judged is `corrupt` or `too_large`."""
        judgements: dict[int, Judgement] = {}
        decoded: dict[int, Pixels] = {}
        for place, data in enumerate(pictures):
            try:
                decoded[place] = pixels(data, self.sidecar.size, self.sidecar.background, self._caps)
            except PictureError as error:
                judgements[place] = Judgement(verdict=error.reason, detail=error.detail)
        if decoded:
            for place, row in zip(decoded, self.score(np.stack(list(decoded.values()))), strict=True):
                judgements[place] = self.judgement(row)
        return [judgements[place] for place in range(len(pictures))]

    def judgement(self, row: NDArray[np.float32]) -> Judgement:
        """One row of `score`, float32 [labels], as a judgement."""
        scores = dict(zip(self.sidecar.labels, row.tolist(), strict=True))
        label = leading(scores, self.sidecar)
        return Judgement(verdict(scores, self.sidecar), label, scores[label], scores)


def main() -> int:
    """Judge the pictures named on the command line: 0, or 1 if one of them cannot be judged."""
    parser = argparse.ArgumentParser(prog="python -m stages.inference.predictor", description=__doc__)
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE")
    parser.add_argument("--json", action="store_true", help="a JSON object a line, with the scores of all labels")
    parser.add_argument("--model", type=Path, default=paths.MODEL, help=f"with its side-car beside it [{paths.MODEL}]")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads [1]")
    options = parser.parse_args()
    predictor = Predictor(options.model, threads=options.threads)
    failed = False
    for path in options.pictures:
        try:
            judgement = predictor.judge([path.read_bytes()])[0]
        except OSError as error:
            judgement = Judgement(verdict="unreadable", detail=error.strerror or str(error))
        failed |= not judgement.scores
        if options.json:
            print(json.dumps({"picture": str(path), **dataclasses.asdict(judgement)}, ensure_ascii=False))  # noqa: T201
        elif judgement.scores:
            print(f"{path}: {judgement.label} {judgement.score:.4f} -> {judgement.verdict}")  # noqa: T201
        else:
            print(f"{path}: {judgement.verdict}: {judgement.detail}")  # noqa: T201
    return int(failed)


if __name__ == "__main__":
    run(main)
