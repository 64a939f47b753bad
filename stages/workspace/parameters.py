"""`params.yaml` -> a typed, frozen section: its types, how it is checked, how a stage loads its own."""

from __future__ import annotations

import dataclasses
import difflib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, dataclass_transform

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from stages.workspace import paths
from stages.workspace.errors import ParamsError

log = logging.getLogger(__name__)

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]

Section = TypeVar("Section")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, Field))
def section(kind: type[Section]) -> type[Section]:
    """Make a class a section of `params.yaml`: a frozen dataclass that takes no unknown key and no other type."""
    return dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))(kind)  # type: ignore[return-value]


def load(kind: type[Section], path: Path = paths.PARAMS) -> Section:
    """The section of `params.yaml` with the stage's name, checked and frozen: `load(Extract).limit`.

    Raises:
        ParamsError: as `read` and `validated` do.
    """
    values = read(path)
    if "DVC_STAGE" in os.environ and "DVC_EXP_NAME" not in os.environ:  # in `dvc exp run`, -S may differ from conf/
        _warn_of_differences()
    return validated(kind, values.get(kind.__name__.lower()))


def read(path: Path = paths.PARAMS) -> dict[str, Any]:
    """`params.yaml` as plain values.

    Raises:
        ParamsError: if there is no such file, or it is no YAML mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(
            f"no {path} here; run from the repository's root, or write it with `python -m stages.config`"
        ) from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ParamsError(f"{path} must hold one section a stage")
    return cast(dict[str, Any], values)


def validated(kind: type[Section], values: object) -> Section:
    """Check the values of the section with `kind`'s name, and freeze them.

    Raises:
        ParamsError: naming the key, for an unknown key, a wrong type, a missing value or a broken range.
    """
    name = kind.__name__.lower()
    if not isinstance(values, dict):
        raise ParamsError(f"params.yaml has no section `{name}`; write it from conf/ with `python -m stages.config`")
    unset = next((key for key, value in _leaves(name, values) if value == "???"), None)
    if unset:  # Hydra's mark of a value that is still to be given passes silently as text
        raise ParamsError(f"{unset} has no value; set it in conf/ or with -S {unset}=...")
    try:
        # By way of JSON: strict types, yet plain mappings are taken for the nested sections.
        return TypeAdapter(kind).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise ParamsError(_explain(name, kind, values, error)) from None


def _explain(name: str, kind: type[Any], values: dict[str, Any], error: ValidationError) -> str:
    """The first complaint, with the key in dots."""
    first = error.errors(include_url=False, include_context=True)[0]
    place = _place(values, first["loc"])
    key = ".".join([name, *place])
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        near = difflib.get_close_matches(place[-1], _names(kind), 1)
        known = f"did you mean {near[0]}?" if near else f"see stages/config/{name}.py for the known ones"
        return f"{key} is not a parameter; {known}"
    if first["type"].startswith("missing"):
        return f"{key} has no value; set it in conf/ or with -S {key}=..."
    if first["type"] == "union_tag_invalid":
        context = first["ctx"]
        return f"{key}.name must be one of {context['expected_tags']}; it is {context['tag']!r}"
    said = f"{key}: {first['msg'].removeprefix('Value error, ')}"
    return said if isinstance(first["input"], dict) else f"{said}; it is {first['input']!r}"


def _place(values: object, location: tuple[int | str, ...]) -> list[str]:
    """The keys of an error's location, without the names of union members that pydantic puts between them."""
    place: list[str] = []
    for number, part in enumerate(location):
        inside = isinstance(values, dict) and part in values
        last = number == len(location) - 1
        if isinstance(values, dict) and not inside and not last and part == values.get("name"):
            continue  # the discriminator of a union
        place.append(str(part))
        values = values[part] if inside and isinstance(values, dict) else None
    return place


def _names(kind: type[Any]) -> set[str]:
    """The parameters of a section and of the sections in it."""
    schema = TypeAdapter(kind).json_schema()
    return {name for each in (schema, *schema.get("$defs", {}).values()) for name in each.get("properties", {})}


def _leaves(key: str, value: object) -> Iterator[tuple[str, object]]:
    """Every value that is no mapping, with its key in dots."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _leaves(f"{key}.{name}", each)
    else:
        yield key, value


def _warn_of_differences() -> None:
    """Warn if `params.yaml` is not what `conf/` composes; the run goes on with `params.yaml` all the same.

    A process of its own: a stage that imported the composing of all sections would depend on the code of all of them.
    """
    if not paths.CONF.is_dir():
        return
    command = [sys.executable, "-m", "stages.config", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        advice = "write it anew with `python -m stages.config`, or make conf/ say the same"
        lines = "\n  ".join(done.stderr.strip().splitlines())
        log.warning("warning: params.yaml is not what conf/ composes (%s):\n  %s", advice, lines)
