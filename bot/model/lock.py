"""What `dvc.yaml` and `dvc.lock` say of a model, read as the files of a stranger."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml

from stages.inference import ModelError

DEPTH = 50
"""Nested collections in a YAML file; the parser written in C overruns its stack at some ten thousand."""


@dataclass(frozen=True)
class Entry:
    """A file as `dvc.lock` knows it."""

    path: str
    md5: str


def locked(definition: bytes | None, lock: bytes | None, name: str, at: str) -> tuple[Entry, Entry]:
    """The model and the side-car of the artifact `name`, from the contents of `dvc.yaml` and `dvc.lock`.

    Args:
        definition: `dvc.yaml`; None if there is none.
        lock: `dvc.lock`, the same.
        name: of the artifact.
        at: where both are from, for people.

    Raises:
        ModelError: if they do not tell.
    """
    artifact = _mapping(_mapping(_parsed(definition, f"dvc.yaml of {at}").get("artifacts")).get(name))
    path = artifact.get("path")
    if not isinstance(path, str):
        raise ModelError(f"dvc.yaml of {at} has no artifact {name}; declare one under `artifacts:`, with its path")
    model = PurePosixPath(path)
    if model.is_absolute() or ".." in model.parts or model.suffix != ".onnx" or not path.isprintable() or "\\" in path:
        raise ModelError(
            f"the artifact {name} in dvc.yaml of {at} has the path {path[:80]!r}, which is no .onnx file in the "
            "repository; mend it, or ask for another commit"
        )
    stages = _mapping(_parsed(lock, f"dvc.lock of {at}").get("stages"))
    outs = [_mapping(out) for stage in stages.values() for out in _list(_mapping(stage).get("outs"))]

    def entry(file: PurePosixPath) -> Entry:
        out = next((out for out in outs if out.get("path") == str(file)), None)
        if out is None:
            raise ModelError(f"dvc.lock of {at} has no {file}; make it an out of a stage, then `dvc repro` and commit")
        md5 = out.get("md5")
        if not isinstance(md5, str) or not re.fullmatch("[0-9a-f]{32}", md5):
            raise ModelError(f"dvc.lock of {at} gives {file} no md5 of 32 hex digits; `dvc repro` and commit")
        return Entry(str(file), md5)

    return entry(model), entry(model.with_suffix(".json"))


def _parsed(text: bytes | None, of: str) -> Mapping[str, Any]:
    """YAML from a stranger: no types, no merges that multiply, no depth that ends the process."""
    if text is None:
        raise ModelError(f"there is no {of}; commit what `dvc repro` wrote")
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH:
                raise ValueError("nested too deep")
        values = yaml.load(text, Loader=_LOADER)  # noqa: S506 - the base loader makes nothing but strings
    except (yaml.YAMLError, ValueError) as error:
        detail = " ".join(str(error).split())[:200]
        raise ModelError(f"{of} is no YAML that can be read ({detail}); mend it, or ask for another commit") from error
    if not isinstance(values, dict):
        raise ModelError(f"{of} is no mapping; mend it, or ask for another commit")
    return values


_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
