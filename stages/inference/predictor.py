"""Picture bytes -> verdict: loads an exported model and scores pictures. The test stage and the bot both use it.

It needs ONNX Runtime, Pillow and numpy. `python -m stages.inference.predictor PICTURE... [--json]` prints the label,
score and verdict of each picture; a picture is a file, a folder with all that is in it, or - for stdin.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from stages.inference.decoding import CAPS, Caps, Pixels, pixels
from stages.inference.runtime import session
from stages.inference.sidecar import Sidecar, deciding_label, verdict
from stages.workspace import paths
from stages.workspace.errors import ModelError, PictureError, run

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
BATCH = 16
"""Pictures per run of the graph. On a CPU, larger batches use more memory and are no faster."""


@dataclass(frozen=True)
class Judgement:
    """The model's answer for one picture."""

    verdict: str
    """A label; of a multilabel model several joined with "+", or "none". `corrupt` or `too_large` if the picture cannot
    be scored."""
    label: str | None = None
    """The label that decided the verdict, see `deciding_label`; None if the picture cannot be scored."""
    score: float | None = None
    """Probability of `label`; None if the picture cannot be scored."""
    scores: dict[str, float] = field(default_factory=dict)
    """Probability of every label; empty if the picture cannot be scored."""
    detail: str = ""
    """Why the picture cannot be scored."""


class Predictor:
    """A loaded and warmed-up model. Safe to share between threads."""

    def __init__(
        self, model: Path = paths.MODEL, sidecar: Path | None = None, threads: int = 1, caps: Caps = CAPS
    ) -> None:
        """Load a model and its side-car.

        Args:
            model: the ONNX file.
            sidecar: its JSON file; by default the one beside it.
            threads: CPU threads of each run.
            caps: pictures over these are `too_large`.

        Raises:
            ModelError: if a file is missing or invalid, or the two are not of the same training.
        """
        self.sidecar = Sidecar.read(sidecar or model.with_suffix(".json"))
        self._caps = caps
        self._session = session(model, threads)
        self._check(model)
        size = self.sidecar.size
        # The first run allocates memory and is slow: better here than for the first picture.
        self.score(np.zeros((1, size, size, 3), np.uint8))

    def _check(self, model: Path) -> None:
        """Check that graph and side-car have the same labels, in the same order, and the same picture size."""
        labels = json.loads(self._session.get_modelmeta().custom_metadata_map.get("labels", "null"))
        if labels != list(self.sidecar.labels):
            raise ModelError(
                f"{model} scores {labels}, its side-car names {list(self.sidecar.labels)}, so they are of different "
                "trainings; get both with `dvc checkout models/moderator.onnx models/moderator.json`"
            )
        shape = self._session.get_inputs()[0].shape
        if shape[1:] != [self.sidecar.size, self.sidecar.size, 3]:
            raise ModelError(
                f"{model} takes pictures of {shape[1:]}, its side-car says {self.sidecar.size} px, so they are of "
                "different trainings; get both with `dvc checkout`"
            )

    def score(self, pictures: Pixels) -> NDArray[np.float32]:
        """Score decoded pictures.

        Args:
            pictures: uint8 [n, size, size, 3], RGB, from `stages.inference.decoding.pixels`.

        Returns:
            Probabilities, float32 [n, labels], in the side-car's order. Rows of binary and multiclass models sum to 1.
        """
        parts = [
            self._session.run(["scores"], {"pixels": pictures[start : start + BATCH]})[0]
            for start in range(0, len(pictures), BATCH)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(self.sidecar.labels)), np.float32)

    def judge(self, pictures: Sequence[bytes]) -> list[Judgement]:
        """Judge picture files. Any bytes are safe: what cannot be decoded gets the verdict `corrupt` or `too_large`."""
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
        """Turn one row of `score`, float32 [labels], into a judgement."""
        scores = dict(zip(self.sidecar.labels, row.tolist(), strict=True))
        label = deciding_label(scores, self.sidecar)
        return Judgement(verdict(scores, self.sidecar), label, scores[label], scores)


def main() -> int:
    """Judge the pictures given on the command line; exit code 1 if one of them cannot be scored."""
    parser = argparse.ArgumentParser(prog="python -m stages.inference.predictor", description="Score pictures.")
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="a file, a folder, or - for stdin")
    parser.add_argument("--json", action="store_true", help="print a JSON object per picture, with all scores")
    parser.add_argument("--model", type=Path, default=paths.MODEL, help=f"the ONNX file [{paths.MODEL}]")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads [1]")
    options = parser.parse_args()
    # A file's name may be any bytes. They are printed as they are, or in JSON as escapes, which `json` reads again.
    cast(io.TextIOWrapper, sys.stdout).reconfigure(
        encoding="utf-8", errors="backslashreplace" if options.json else "surrogateescape"
    )
    predictor = Predictor(options.model, threads=options.threads)
    failed = False
    try:
        for name in _files(options.pictures):
            judgement = _judge_file(predictor, name)
            failed |= not judgement.scores
            print(_line(name, judgement, options.json), flush=True)  # noqa: T201
    except BrokenPipeError:  # whoever reads, such as `head`, wants no more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it exits
    return int(failed)


def _files(names: Iterable[str]) -> Iterator[str]:
    """Each name, or for a folder's the regular files in it and below, sorted."""
    for name in names:
        if not Path(name).is_dir():
            yield name
            continue
        for folder, folders, files in os.walk(name):
            folders.sort()
            places = sorted(str(Path(folder) / file) for file in files)
            yield from (place for place in places if Path(place).is_file())


def _judge_file(predictor: Predictor, name: str) -> Judgement:
    """Judge one file, or stdin for -. A file over the cap is not read."""
    try:
        with open(0, "rb", closefd=False) if name == "-" else Path(name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # Of what has no size, such as a pipe, one byte too many is enough to tell.
            data = b"" if size > CAPS.max_bytes else file.read(CAPS.max_bytes + 1)
    except OSError as error:
        detail = error.strerror or str(error)
        if ADDRESS.match(name):
            detail = "not a file; this command fetches nothing, so download the picture first"
        return Judgement(verdict="unreadable", detail=detail)
    if size > CAPS.max_bytes:
        return Judgement(verdict="too_large", detail=f"{size} bytes, over the cap of {CAPS.max_bytes}")
    return predictor.judge([data])[0]


def _line(name: str, judgement: Judgement, as_json: bool) -> str:
    if as_json:
        return json.dumps({"picture": name, **dataclasses.asdict(judgement)}, ensure_ascii=False)
    if judgement.score is None:
        return f"{name}: {judgement.verdict}: {judgement.detail}"
    return f"{name}: {judgement.label} {judgement.score:.4f} -> {judgement.verdict}"


if __name__ == "__main__":
    run(main)
