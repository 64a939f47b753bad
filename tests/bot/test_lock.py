"""What `dvc.yaml` and `dvc.lock` may say, and what a stranger's are refused for."""

from __future__ import annotations

import pytest

from bot.model.lock import Entry, locked
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


def test_the_lock_tells_both_files() -> None:
    entries = Entry("models/moderator.onnx", A), Entry("models/moderator.json", B)
    assert locked(YAML.encode(), BOTH.encode(), "moderator", "x") == entries
    assert locked(YAML.replace("models/", "./models//").encode(), BOTH.encode(), "moderator", "x") == entries


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        (None, "there is no dvc.yaml of x at 1; commit what `dvc repro` wrote"),
        ("[]", "dvc.yaml of x at 1 is no mapping; mend it"),
        ("artifacts: [moderator]", "dvc.yaml of x at 1 has no artifact moderator; declare one"),
        ("artifacts: {moderator: {path: [x]}}", "dvc.yaml of x at 1 has no artifact moderator"),
        (YAML.replace("models", ".."), r"path '\.\./moderator\.onnx', which is no \.onnx file in the repository"),
        (YAML.replace("models", "/etc"), r"path '/etc/moderator\.onnx', which is no \.onnx file in the repository"),
        (YAML.replace("models", r'"a\nb').replace("onnx", 'onnx"'), r"path 'a\\nb/moderator\.onnx', which is no"),
        (YAML.replace(".onnx", ".pkl"), r"path 'models/moderator\.pkl', which is no \.onnx file in the repository"),
        (YAML.replace("models/moderator", "x" * 10_000), r"path 'x{80}', which is no|has no x+\.onnx"),
    ],
)
def test_a_definition_that_does_not_tell_is_refused(definition: str | None, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        locked(definition.encode() if definition else None, BOTH.encode(), "moderator", "x at 1")


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        (None, "there is no dvc.lock of x at 1; commit what `dvc repro` wrote"),
        (b"", "dvc.lock of x at 1 is no mapping; mend it"),
        (b"stages: {train: {outs: 1}, test: 2}", "dvc.lock of x at 1 has no models/moderator.onnx; make it an out of"),
        (BOTH.replace(".json", ".txt").encode(), "dvc.lock of x at 1 has no models/moderator.json; make it an out"),
        ((LOCK % (A + ".dir", B)).encode(), "dvc.lock of x at 1 gives models/moderator.onnx no md5 of 32 hex digits"),
        ((LOCK % (A, "../../x")).encode(), "dvc.lock of x at 1 gives models/moderator.json no md5 of 32 hex digits"),
        ((LOCK % (A, "[1]")).encode(), "dvc.lock of x at 1 gives models/moderator.json no md5 of 32 hex digits"),
        (b"a: b: c", "dvc.lock of x at 1 is no YAML that can be read"),
        (b"a: *b", "dvc.lock of x at 1 is no YAML that can be read"),
        (b"\0", "dvc.lock of x at 1 is no YAML that can be read"),
        (b"\xff\xfe\xff", "dvc.lock of x at 1 is no YAML that can be read"),
        (b"[" * 200_000, r"dvc.lock of x at 1 is no YAML that can be read \(nested too deep\); mend it"),
        (b"- " * 200_000, r"dvc.lock of x at 1 is no YAML that can be read \(nested too deep\); mend it"),
        (MERGES.encode(), "dvc.lock of x at 1 has no models/moderator.onnx"),
        ((ALIASES + (LOCK % ("*i", A))).encode(), "dvc.lock of x at 1 gives models/moderator.onnx no md5 of 32 hex"),
        (b"stages: !!python/object/apply:os.system [exit]", "dvc.lock of x at 1 has no models/moderator.onnx"),
    ],
    ids=range(16),
)
def test_a_lock_that_does_not_tell_is_refused(lock: bytes | None, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        locked(YAML.encode(), lock, "moderator", "x at 1")
    assert len(str(caught.value)) < 400
