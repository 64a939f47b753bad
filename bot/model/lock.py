"""The model's paths and md5s from `dvc.yaml` and `dvc.lock`, read as untrusted files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml

from stages.inference import ModelError

MAX_DEPTH = 50
"""Nested collections in a YAML file. libyaml's C parser overflows its stack at about ten thousand."""


@dataclass(frozen=True)
class LockedFile:
    """A file and its md5 in `dvc.lock`."""

    path: str
    md5: str


def locked_files(definition: bytes | None, lock: bytes | None, name: str, at: str) -> tuple[LockedFile, LockedFile]:
    """The model and the side-car of an artifact.

    Args:
        definition: contents of `dvc.yaml`; None if it is missing.
        lock: contents of `dvc.lock`; None if it is missing.
        name: of the artifact.
        at: where both files are from, for errors.

    Raises:
        ModelError: if a file is missing or invalid, or does not name both.
    """
    model = _model_path(_parse(definition, f"dvc.yaml of {at}"), name, at)
    stages = _mapping(_parse(lock, f"dvc.lock of {at}").get("stages"))
    outs = [_mapping(out) for stage in stages.values() for out in _list(_mapping(stage).get("outs"))]
    return _find(outs, model, at), _find(outs, model.with_suffix(".json"), at)


def _model_path(definition: Mapping[str, Any], name: str, at: str) -> PurePosixPath:
    path = _mapping(_mapping(definition.get("artifacts")).get(name)).get("path")
    if not isinstance(path, str):
        raise ModelError(f"dvc.yaml of {at} has no artifact {name}; declare it and its path under `artifacts:`")
    model = PurePosixPath(path)
    # The path comes from whoever can push to the repository, and must not lead out of it.
    if model.is_absolute() or ".." in model.parts or model.suffix != ".onnx" or not path.isprintable() or "\\" in path:
        raise ModelError(
            f"the artifact {name} in dvc.yaml of {at} has the path {path[:80]!r}, which is not an .onnx file in the "
            "repository; correct it, or choose another commit"
        )
    return model


def _find(outs: list[Mapping[str, Any]], file: PurePosixPath, at: str) -> LockedFile:
    out = next((out for out in outs if out.get("path") == str(file)), None)
    if out is None:
        raise ModelError(f"dvc.lock of {at} has no {file}; make it an out of a stage, then `dvc repro` and commit")
    md5 = out.get("md5")
    if not isinstance(md5, str) or not re.fullmatch("[0-9a-f]{32}", md5):
        raise ModelError(f"dvc.lock of {at} has no md5 of 32 hex digits for {file}; `dvc repro` and commit")
    return LockedFile(str(file), md5)


def _parse(text: bytes | None, of: str) -> Mapping[str, Any]:
    """Parse YAML safely: no types but strings, no merge keys that expand exponentially, no deep nesting."""
    if text is None:
        raise ModelError(f"there is no {of}; run `dvc repro` and commit the file")
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ValueError("nested too deeply")
        values = yaml.load(text, Loader=_LOADER)  # noqa: S506 - the base loader creates only strings and collections
    except (yaml.YAMLError, ValueError) as error:
        detail = " ".join(str(error).split())[:200]
        raise ModelError(f"{of} is not valid YAML ({detail}); correct it, or choose another commit") from error
    if not isinstance(values, dict):
        raise ModelError(f"{of} is not a mapping; correct it, or choose another commit")
    return values


_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
