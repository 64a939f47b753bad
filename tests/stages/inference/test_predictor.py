"""A tiny exported model: known scores, malicious pictures, files of different trainings."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stages.inference.decoding import Caps
from stages.inference.predictor import BATCH, Judgement, Predictor, _line
from stages.inference.sidecar import Sidecar
from stages.training.calibration import Calibration
from stages.training.export import chain, check_parity, export
from stages.training.networks import ExportModel
from stages.workspace.errors import ModelError

ROOT = Path(__file__).parents[3]
SIZE = 32
Encoded = Callable[..., bytes]
Make = Callable[..., Sidecar]


class Redness(nn.Module):
    """Pixels -> a logit of (mean red - mean blue) / 50, by a convolution and a linear layer; no tags."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 4, stride=4, bias=False)
        self.labels = nn.Linear((SIZE // 4) ** 2, 1)
        with torch.no_grad():
            self.conv.weight[0] = torch.tensor([1.0, 0.0, -1.0])[:, None, None] / 16
            self.labels.weight.fill_(1 / 50 / (SIZE // 4) ** 2)
            self.labels.bias.zero_()

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        found = self.labels(self.conv(pixels.permute(0, 3, 1, 2).float()).flatten(1)).unsqueeze(1)
        return found, found[..., :0]


def moderator() -> ExportModel:
    return ExportModel(None, Redness(), "binary", Calibration(2.0, (0.5,)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, sidecar: Make) -> Path:
    """The model, with its side-car beside it: flagged from a score of 0.6 on."""
    model = tmp_path_factory.mktemp("models") / "moderator.onnx"
    export(moderator(), model, (SIZE, SIZE, 3))
    chain([model], model, ("flagged", "clean"))
    sidecar("binary", ("flagged", "clean"), {"flagged": 0.6}, SIZE).write(model.with_suffix(".json"))
    return model


@pytest.fixture(scope="module")
def predictor(made: Path) -> Predictor:
    return Predictor(made)


def bomb(width: int, height: int) -> bytes:
    """A PNG of 60 bytes whose header claims a size that it does not hold."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("colour", "score", "verdict"),
    [
        ((255, 0, 0), 0.954774, "flagged"),  # sigmoid(255 / 50 / 2 + 0.5)
        ((0, 0, 255), 0.114052, "clean"),  # sigmoid(-255 / 50 / 2 + 0.5)
        ((128, 128, 128), 0.622459, "flagged"),  # sigmoid(0.5)
        ((90, 0, 110), 0.574443, "clean"),  # sigmoid(-20 / 50 / 2 + 0.5): likelier than not, but under the threshold
    ],
)
def test_the_scores_of_a_drawn_picture(
    predictor: Predictor, encoded: Encoded, colour: tuple[int, int, int], score: float, verdict: str
) -> None:
    found = predictor.judge([encoded(colour)])[0]
    assert found.scores == {"flagged": pytest.approx(score, abs=1e-5), "clean": pytest.approx(1 - score, abs=1e-5)}
    assert (found.label, found.score) == ("flagged", found.scores["flagged"])
    assert (found.verdict, found.detail) == (verdict, "")


def test_the_borders_of_a_letterbox_are_the_sidecars_grey(predictor: Predictor, encoded: Encoded) -> None:
    assert predictor.sidecar.background == 128
    whole, half = encoded("red"), encoded("red", height=20)
    logits = [np.log(one.score / (1 - one.score)) for one in predictor.judge([whole, half])]
    assert (logits[1] - 0.5) / (logits[0] - 0.5) == pytest.approx(0.5, abs=1e-3), "half of the square is grey"


HOSTILE = {
    "empty": (b"", "corrupt"),
    "zero bytes": (bytes(5000), "corrupt"),
    "html": (b"<!DOCTYPE html><html><body>please wait</body></html>", "corrupt"),
    "no pixels": (bomb(100, 100), "corrupt"),
    "pixel bomb": (bomb(30_000, 30_000), "too_large"),
    "absurd bomb": (bomb(2_000_000_000, 2_000_000_000), "too_large"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_picture_that_cannot_be_scored_has_a_verdict_of_its_own(predictor: Predictor, name: str) -> None:
    data, expected = HOSTILE[name]
    found = predictor.judge([data])[0]
    assert found.detail
    assert found == Judgement(verdict=expected, detail=found.detail)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_truncated_picture_is_judged_as_far_as_it_goes(predictor: Predictor, encoded: Encoded, kind: str) -> None:
    data = encoded("red", kind, side=200)
    assert predictor.judge([data[:-20]])[0].verdict == "flagged"


def test_the_predictors_caps_apply(made: Path, encoded: Encoded) -> None:
    strict = Predictor(made, caps=Caps(max_bytes=10**6, max_pixels=1600))
    verdicts = [one.verdict for one in strict.judge([encoded("red", side=40), encoded("red", side=41)])]
    assert verdicts == ["flagged", "too_large"]


def test_good_and_bad_pictures_keep_their_order(predictor: Predictor, encoded: Encoded) -> None:
    pictures = {"flagged": encoded("red"), "clean": encoded("blue"), "corrupt": b"", "too_large": bomb(30_000, 30_000)}
    order = ["corrupt", "clean", "flagged", "too_large", "clean"] * BATCH
    assert [one.verdict for one in predictor.judge([pictures[name] for name in order])] == order


def test_a_picture_scores_the_same_alone_and_among_others(predictor: Predictor) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (BATCH + 3, SIZE, SIZE, 3), np.uint8)
    alone = np.concatenate([predictor.score(pictures[n : n + 1]) for n in range(len(pictures))])
    assert predictor.score(pictures) == pytest.approx(alone, abs=1e-6)


def test_no_pictures_have_no_scores(predictor: Predictor) -> None:
    assert predictor.judge([]) == []
    assert predictor.score(np.empty((0, SIZE, SIZE, 3), np.uint8)).shape == (0, 2)


def test_threads_share_a_predictor(predictor: Predictor, encoded: Encoded) -> None:
    pictures = [encoded((level, 0, 0)) for level in range(0, 256, 8)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda data: predictor.judge([data])[0], pictures)) == predictor.judge(pictures)


def test_the_same_network_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.onnx"
    export(moderator(), again, (SIZE, SIZE, 3))
    chain([again], again, ("flagged", "clean"))
    assert again.read_bytes() == made.read_bytes()


def test_the_file_names_no_path_of_the_machine_that_made_it(made: Path) -> None:
    assert str(ROOT).encode() not in made.read_bytes()
    assert b"site-packages" not in made.read_bytes()


def test_a_graph_of_another_network_fails_the_parity_check(made: Path) -> None:
    other = moderator()
    other.calibration = Calibration(1.0, (0.5,))
    with pytest.raises(ModelError, match="the exported graph's scores differ from the network's by 0"):
        check_parity(other, made, np.full((1, SIZE, SIZE, 3), [255, 0, 0], np.uint8))


@pytest.mark.parametrize(
    ("labels", "size", "said"),
    [
        (("clean", "flagged"), SIZE, r"scores \['flagged', 'clean'\], its side-car names \['clean', 'flagged'\]"),
        (("flagged", "clean"), 64, r"takes pictures of \[32, 32, 3\], its side-car says 64 px"),
    ],
    ids=["labels in another order", "size"],
)
def test_a_sidecar_of_another_model_is_refused(
    made: Path, sidecar: Make, labels: tuple[str, ...], size: int, said: str, tmp_path: Path
) -> None:
    sidecar("binary", labels, {labels[0]: 0.5}, size).write(tmp_path / "other.json")
    with pytest.raises(ModelError, match=said):
        Predictor(made, tmp_path / "other.json")


def test_a_file_that_is_no_model_is_refused(made: Path, tmp_path: Path) -> None:
    shutil.copy(made.with_suffix(".json"), tmp_path / "cut.json")
    (tmp_path / "cut.onnx").write_bytes(made.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"cut\.onnx is no ONNX model that can be loaded; restore it"):
        Predictor(tmp_path / "cut.onnx")


def command(*words: object, folder: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        input=stdin.decode("latin-1"),
        capture_output=True,
        encoding="latin-1",  # has a letter for each byte
        check=False,
    )


@pytest.fixture
def pictures(made: Path, encoded: Encoded, tmp_path: Path) -> Path:
    """A folder like a clone: the model in its place, and two pictures."""
    (tmp_path / "models").mkdir()
    for suffix in (".onnx", ".json"):
        shutil.copy(made.with_suffix(suffix), tmp_path / "models")
    (tmp_path / "red.png").write_bytes(encoded("red"))
    (tmp_path / "bad.png").write_bytes(b"<html>")
    return tmp_path


def test_the_command_prints_an_object_per_picture(pictures: Path) -> None:
    done = command("-m", "stages.inference.predictor", "red.png", "--json", folder=pictures)
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert (said["picture"], said["verdict"], round(said["scores"]["flagged"], 4)) == ("red.png", "flagged", 0.9548)


def test_the_command_continues_after_a_picture_that_cannot_be_scored(pictures: Path) -> None:
    done = command("-m", "stages.inference.predictor", "bad.png", "absent.png", "red.png", folder=pictures)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        "bad.png: corrupt: no readable picture (UnidentifiedImageError)",
        "absent.png: unreadable: No such file or directory",
        "red.png: flagged 0.9548 -> flagged",
    ]


def scored(folder: Path, *words: object, stdin: bytes = b"") -> dict[str, dict[str, Any]]:
    """What the command prints as JSON: picture -> its object."""
    done = command("-m", "stages.inference.predictor", "--json", *words, folder=folder, stdin=stdin)
    assert done.stderr == ""
    objects = [json.loads(line) for line in done.stdout.encode("latin-1").splitlines()]
    assert done.returncode == any(one["score"] is None for one in objects)
    return {one["picture"]: one for one in objects}


def test_the_command_scores_folders_and_stdin(pictures: Path, encoded: Encoded) -> None:
    (pictures / "more/deep").mkdir(parents=True)
    (pictures / "more/deep/blue.png").write_bytes(encoded("blue"))
    (pictures / "more/a.png").write_bytes(encoded("red"))
    (pictures / "more/absent.png").symlink_to("nowhere")
    os.mkfifo(pictures / "more/pipe")  # in a folder, nobody writes to it on purpose
    answers = scored(pictures, "more", "-", "red.png", stdin=encoded("blue"))
    assert {name: one["verdict"] for name, one in answers.items()} == {
        "more/a.png": "flagged",
        "more/deep/blue.png": "clean",
        "-": "clean",
        "red.png": "flagged",
    }


def test_what_is_not_scored_has_no_score(pictures: Path) -> None:
    addresses = ("https://derpicdn.net/img/1.png", "FTP://example.org/x", "s3://bucket/1.png")
    answers = scored(pictures, "bad.png", "absent.png", "-", *addresses, stdin=b"")
    assert [(one["label"], one["score"], one["scores"]) for one in answers.values()] == [(None, None, {})] * 6
    for address in addresses:
        assert answers[address]["verdict"] == "unreadable"
        assert answers[address]["detail"].startswith("not a file; this command fetches nothing")


def test_a_file_over_the_cap_is_not_read(pictures: Path) -> None:
    with (pictures / "large.png").open("wb") as file:
        file.truncate(3 << 30)
    words = ["-m", "stages.inference.predictor", "large.png", "--json"]
    # A third of the memory that reading it would take.
    limit = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30)); "
    code = f"{limit}sys.argv = {words[1:]}; runpy.run_module(sys.argv[0], run_name='__main__')"
    done = command("-c", code, folder=pictures)
    assert (done.returncode, done.stderr) == (1, "")
    answer = json.loads(done.stdout)
    assert (answer["verdict"], answer["detail"]) == ("too_large", f"{3 << 30} bytes, over the cap of 25000000")


def test_a_stream_over_the_cap_is_not_read_to_its_end(pictures: Path) -> None:
    (answer,) = scored(pictures, "/dev/zero").values()
    assert (answer["verdict"], answer["score"]) == ("too_large", None)


@given(st.binary(min_size=1, max_size=30).filter(lambda name: not {b"/"[0], 0} & set(name)))
@settings(max_examples=200)
def test_any_name_is_printed(name: bytes) -> None:
    text = os.fsdecode(name)
    judgement = Judgement("flagged", "flagged", 0.9, {"flagged": 0.9, "clean": 0.1})
    printed = _line(text, judgement, True).encode("utf-8", "backslashreplace")
    assert os.fsencode(json.loads(printed)["picture"]) == name
    printed = _line(text, judgement, False).encode("utf-8", "surrogateescape")
    assert printed == name + b": flagged 0.9000 -> flagged"


def test_a_name_that_is_not_utf_8_is_scored(pictures: Path, encoded: Encoded) -> None:
    name = b"gr\xfcn \xf0\x9f\x98\x80.png"
    (pictures / os.fsdecode(name)).write_bytes(encoded("red"))
    done = command("-m", "stages.inference.predictor", ".", folder=pictures)
    assert name + b": flagged 0.9548 -> flagged" in done.stdout.encode("latin-1").splitlines()
    assert scored(pictures, os.fsdecode(name))[os.fsdecode(name)]["verdict"] == "flagged"


def test_a_closed_pipe_ends_the_command_in_silence(pictures: Path) -> None:
    (pictures / "many").mkdir()
    for number in range(2000):  # more lines than a pipe holds
        (pictures / f"many/{number:0100}.png").symlink_to("../bad.png")
    line = f"{sys.executable} -m stages.inference.predictor many | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        cwd=pictures,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (1, "", 1)


def test_without_a_model_the_command_says_where_to_get_one(pictures: Path) -> None:
    (pictures / "models/moderator.onnx").unlink()
    done = command("-m", "stages.inference.predictor", "red.png", folder=pictures)
    assert done.returncode == 1
    said = "error: no model models/moderator.onnx; make one with `dvc repro train`, or get it with `dvc pull`\n"
    assert (done.stdout, done.stderr) == ("", said)


def test_the_predictor_needs_neither_torch_nor_pandas(tmp_path: Path) -> None:
    code = "import sys, stages.inference.predictor; print({'torch', 'pandas', 'pyarrow'} & set(sys.modules))"
    assert command("-c", code, folder=tmp_path).stdout == "set()\n"
