"""What `dvc.yaml` and `dvc.lock` may say, and what a stranger's are refused for."""

from __future__ import annotations

import pytest

from bot.model.lock import LockedFile, locked_files
from stages.workspace.errors import ModelError

YAML = "artifacts: {moderator: {path: models/moderator.onnx}}"
LOCK = "stages: {train: {outs: [{path: models/moderator.onnx, md5: %s}, {path: models/moderator.json, md5: %s}]}}"
A, B = "a" * 32, "0123456789" * 3 + "01"
BOTH = LOCK % (A, B)
MERGES = "a: &a {x: y}\n" + "".join(
    f"{after}: &{after} {{<<: [{', '.join(['*' + before] * 9)}]}}\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
ALIASES = MERGES.replace("{<<: ", "").replace("]}", "]")


def test_the_lock_has_both_files() -> None:
    entries = LockedFile("models/moderator.onnx", A), LockedFile("models/moderator.json", B)
    assert locked_files(YAML.encode(), BOTH.encode(), "moderator", "x") == entries
    assert locked_files(YAML.replace("models/", "./models//").encode(), BOTH.encode(), "moderator", "x") == entries


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (None, "there is no dvc.yaml of x at 1; run `dvc repro` and commit the file"),
        ("[]", "dvc.yaml of x at 1 is not a mapping; correct it"),
        ("artifacts: [moderator]", "dvc.yaml of x at 1 has no artifact moderator; declare it"),
        ("artifacts: {moderator: {path: [x]}}", "dvc.yaml of x at 1 has no artifact moderator"),
        (YAML.replace("models", ".."), r"path '\.\./moderator\.onnx', which is not an \.onnx file in the repository"),
        (YAML.replace("models", "/etc"), r"path '/etc/moderator\.onnx', which is not an \.onnx file in the repository"),
        (YAML.replace("models", r'"a\nb').replace("onnx", 'onnx"'), r"path 'a\\nb/moderator\.onnx', which is not"),
        (YAML.replace(".onnx", ".pkl"), r"path 'models/moderator\.pkl', which is not an \.onnx file in the repository"),
        (YAML.replace("models/moderator", "x" * 10_000), r"path 'x{80}', which is not|has no x+\.onnx"),
    ],
)
def test_an_invalid_dvc_yaml_is_refused(definition: str | None, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        locked_files(definition.encode() if definition else None, BOTH.encode(), "moderator", "x at 1")


@pytest.mark.parametrize(
    ("lock", "message"),
    [
        (None, "there is no dvc.lock of x at 1; run `dvc repro` and commit the file"),
        (b"", "dvc.lock of x at 1 is not a mapping; correct it"),
        (b"stages: {train: {outs: 1}, test: 2}", "dvc.lock of x at 1 has no models/moderator.onnx; make it an out of"),
        (BOTH.replace(".json", ".txt").encode(), "dvc.lock of x at 1 has no models/moderator.json; make it an out"),
        ((LOCK % (A + ".dir", B)).encode(), "dvc.lock of x at 1 has no md5 of 32 hex digits for models/moderator.onnx"),
        ((LOCK % (A, "../../x")).encode(), "dvc.lock of x at 1 has no md5 of 32 hex digits for models/moderator.json"),
        ((LOCK % (A, "[1]")).encode(), "dvc.lock of x at 1 has no md5 of 32 hex digits for models/moderator.json"),
        (b"a: b: c", "dvc.lock of x at 1 is not valid YAML"),
        (b"a: *b", "dvc.lock of x at 1 is not valid YAML"),
        (b"\0", "dvc.lock of x at 1 is not valid YAML"),
        (b"\xff\xfe\xff", "dvc.lock of x at 1 is not valid YAML"),
        (b"[" * 200_000, r"dvc.lock of x at 1 is not valid YAML \(nested too deeply\); correct it"),
        (b"- " * 200_000, r"dvc.lock of x at 1 is not valid YAML \(nested too deeply\); correct it"),
        (MERGES.encode(), "dvc.lock of x at 1 has no models/moderator.onnx"),
        (
            (ALIASES + (LOCK % ("*i", A))).encode(),
            "dvc.lock of x at 1 has no md5 of 32 hex digits for models/moderator.onnx",
        ),
        (b"stages: !!python/object/apply:os.system [exit]", "dvc.lock of x at 1 has no models/moderator.onnx"),
    ],
    ids=range(16),
)
def test_an_invalid_dvc_lock_is_refused(lock: bytes | None, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        locked_files(YAML.encode(), lock, "moderator", "x at 1")
    assert len(str(caught.value)) < 400
