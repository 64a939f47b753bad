"""A mapping -> a frozen dataclass, or an error that names the key."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from stages.errors import ParamsError

CHECKED = ConfigDict(extra="forbid", strict=True)
"""Of every dataclass that is read from `params.yaml`."""

Section = TypeVar("Section")


def validated(kind: type[Section], values: object) -> Section:
    """Check the values of the section that bears `kind`'s name, and freeze them.

    Raises:
        ParamsError: naming the key, for an unknown key, a wrong type, a missing value or a broken range.
    """
    name = kind.__name__.lower()
    if not isinstance(values, dict):
        raise ParamsError(f"params.yaml has no section `{name}`; run `python -m stages.params` to write it from conf/")
    unset = next((key for key, value in _leaves(name, values) if value == "???"), None)
    if unset:  # Hydra's mark of a value that is still to be given passes silently as text
        raise ParamsError(f"{unset} has no value; set it in conf/ or with -S {unset}=...")
    try:
        # By way of JSON: strict types, yet plain mappings are taken for the nested sections.
        return TypeAdapter(kind).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise ParamsError(_explain(name, kind, error)) from None


def _explain(name: str, kind: type[Any], error: ValidationError) -> str:
    """The first complaint, with the key in dots."""
    first = error.errors(include_url=False, include_context=False)[0]
    key = ".".join([name, *(str(part) for part in first["loc"])])
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        near = difflib.get_close_matches(str(first["loc"][-1]), [each.name for each in dataclasses.fields(kind)], 1)
        return f"{key} is no parameter" + (
            f"; did you mean {near[0]}?" if near else "; see stages/params.py for those there are"
        )
    if first["type"].startswith("missing"):
        return f"{key} has no value; set it in conf/ or with -S {key}=..."
    said = f"{key}: {first['msg'].removeprefix('Value error, ')}"
    return said if isinstance(first["input"], dict) else f"{said}; it is {first['input']!r}"


def _leaves(key: str, value: object) -> Iterator[tuple[str, object]]:
    """Every value that is no mapping, with its key in dots."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _leaves(f"{key}.{name}", each)
    else:
        yield key, value
