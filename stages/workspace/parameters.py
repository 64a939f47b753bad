"""`params.yaml` -> a stage's section as a typed, frozen dataclass, and error messages that name the key."""

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
from typing import Annotated, Any, NamedTuple, TypeVar, cast, dataclass_transform

import yaml
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
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


def _without_tilde(path: str) -> str:
    """Refuse a path that only a shell expands."""
    if path.startswith("~"):  # DVC reads it as well, and would look for a folder of that name
        raise ValueError(f"~ is not expanded; write the whole path, {Path(path).expanduser()}")
    return path


PathText = Annotated[str, Field(min_length=1), AfterValidator(_without_tilde)]
"""A path as text."""

AS_VALUES = "YAML reads yes, no, on, off, true, false, null, ~ and numbers as values, so put {} in quotes"


Section = TypeVar("Section")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, Field))
def section(kind: type[Section]) -> type[Section]:
    """Class decorator for a section of `params.yaml`: a frozen dataclass that rejects unknown keys and wrong types."""
    return dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))(kind)  # type: ignore[return-value]


def load(kind: type[Section], path: Path = paths.PARAMS) -> Section:
    """Load the section of `params.yaml` that has the class's name in lower case: `load(Extract).limit`.

    Raises:
        ParamsError: if the file is missing or invalid, or a parameter is.
    """
    values = read(path)
    if "DVC_STAGE" in os.environ and "DVC_EXP_NAME" not in os.environ:  # `dvc exp run -S` differs from conf/ on purpose
        _warn_of_differences()
    return validated(kind, values.get(kind.__name__.lower()))


def read(path: Path = paths.PARAMS) -> dict[str, Any]:
    """Read `params.yaml` as plain values.

    Raises:
        ParamsError: if there is no such file, or it is not a YAML mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(
            f"{path} not found; run the command in the repository's root, or create it with `python -m stages.config`"
        ) from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ParamsError(f"{path} must contain one section per stage; write it with `python -m stages.config`")
    return cast(dict[str, Any], values)


def validated(kind: type[Section], values: object) -> Section:
    """Check the values of `kind`'s section and return them as a frozen instance.

    Raises:
        ParamsError: for an unknown key, a wrong type, a missing value or a value out of range; it names the key.
    """
    name = kind.__name__.lower()
    if not isinstance(values, dict):
        raise ParamsError(f"params.yaml has no section `{name}`; write it from conf/ with `python -m stages.config`")
    if (key := _not_text(name, values)) is not None:
        raise ParamsError(f"{key[0]} has the key {key[1]!r}, which is not text: {AS_VALUES.format('the name')}")
    unset = next((key for key, value in _leaves(name, values) if value == "???"), None)
    if unset:  # Hydra's mark for a mandatory value; as a plain string it would pass for a text parameter
        raise ParamsError(f"{unset} has no value; set it in conf/ or with -S {unset}=...")
    try:
        # Strict mode takes only instances for nested sections in Python, but plain mappings in JSON.
        return TypeAdapter(kind).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise ParamsError(_explain(name, kind, values, error)) from None


def _explain(name: str, kind: type[Any], values: dict[str, Any], error: ValidationError) -> str:
    """Turn the most telling of pydantic's complaints into one sentence that names the key in dots."""
    complaints = error.errors(include_url=False, include_context=True)
    # A wrong key explains a missing one: a misspelt key, or another model's, leaves the right one without a value.
    first = min(complaints, key=lambda complaint: complaint["type"].startswith("missing"))
    place = _place(values, first["loc"])
    key = ".".join([name, *place])
    match first["type"]:
        case "unexpected_keyword_argument" | "extra_forbidden":
            return _explain_unknown(kind, values, key)
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return f"{key} has no value; set it in conf/ or with -S {key}=..."
        case "union_tag_invalid":
            context = first["ctx"]
            return f"{key}.name must be one of {context['expected_tags']}; it is {context['tag']!r}"
        case "union_tag_not_found":
            return f"{key}.name has no value; set it in conf/ or with -S {key}.name=..."
        case "dict_type" | "dataclass_type":
            group = place[-1]
            advice = f"; choose a file of conf/{group}/ with -S {group}=NAME" if (paths.CONF / group).is_dir() else ""
            return f"{key} must be a section with keys of its own; it is {first['input']!r}{advice}"
    message = f"{key}: {first['msg'].removeprefix('Value error, ')}"
    if not isinstance(first["input"], dict):
        message += f"; it is {first['input']!r}"
    if first["type"] == "string_type" and not isinstance(first["input"], dict | list):
        message += f" ({AS_VALUES.format('text')})"
    return message


def _place(values: object, location: tuple[int | str, ...]) -> list[str]:
    """The keys of a complaint's location, without the names of union members that pydantic puts between them."""
    place: list[str] = []
    for part in location:
        inside = isinstance(values, dict) and part in values
        if isinstance(values, dict) and not inside and part == values.get("name"):
            continue  # the name that selects the union's member
        place.append(str(part))
        values = values[part] if inside and isinstance(values, dict) else None
    return place


class _Parameter(NamedTuple):
    """A parameter that exists."""

    key: str
    """In dots, from the section's name on."""
    member: str | None
    """The name of the union's member that it belongs to, as `probe` for `train.model.hidden`."""
    selected: bool
    """Whether the values select that member."""


def _explain_unknown(kind: type[Any], values: dict[str, Any], key: str) -> str:
    """Say what an unknown key could have been: a parameter of another model, at another level, or misspelt."""
    schema = TypeAdapter(kind).json_schema()
    section_name = kind.__name__.lower()
    known = list(_parameters(schema, schema.get("$defs", {}), values, _Parameter(section_name, None, True)))
    parent, _, leaf = key.rpartition(".")
    if members := [other.member for other in known if other.key == key and other.member]:
        union = parent.rpartition(".")[2]
        selected = next(other.member for other in known if other.key.startswith(f"{parent}.") and other.selected)
        return (
            f"{key} is a parameter of {' and '.join(members)}, not of {selected}; "
            f"remove it, or change the {union} with -S {union}=NAME"
        )
    places = [parameter.key for parameter in known if parameter.selected]
    same_name = [place for place in places if place.rpartition(".")[2] == leaf]
    siblings = {place.rpartition(".")[2]: place for place in places if place.rpartition(".")[0] == parent}
    by_name = {place.rpartition(".")[2]: place for place in places}
    near = same_name or [
        names[name] for names in (siblings, by_name) for name in difflib.get_close_matches(leaf, names, 1)
    ]
    advice = f"did you mean {near[0]}?" if near else f"stages/config/{section_name}.py lists the parameters"
    return f"{key} is not a parameter; {advice}"


def _parameters(
    node: dict[str, Any], definitions: dict[str, Any], values: object, at: _Parameter
) -> Iterator[_Parameter]:
    """Every parameter below a node of a section's JSON schema, including those of union members not selected."""
    if reference := node.get("$ref"):
        node = definitions[reference.rpartition("/")[2]]
    mapping = values if isinstance(values, dict) else {}
    if "discriminator" in node:
        for member, reference in node["discriminator"]["mapping"].items():
            inside = at._replace(member=member, selected=member == mapping.get("name"))
            yield from _parameters({"$ref": reference}, definitions, values, inside)
        return
    children = dict(node.get("properties", {}))
    if isinstance(any_key := node.get("additionalProperties"), dict):  # a mapping with keys of the user's own
        children |= dict.fromkeys(mapping, any_key)
    for name, child in children.items():
        parameter = at._replace(key=f"{at.key}.{name}")
        yield parameter
        yield from _parameters(child, definitions, mapping.get(name), parameter)


def _not_text(place: str, values: object) -> tuple[str, object] | None:
    """The first mapping with a key that is not text: its place in dots, and the key."""
    if isinstance(values, dict):
        for key, value in values.items():
            if not isinstance(key, str):
                return place, key
            if found := _not_text(f"{place}.{key}", value):
                return found
    return None


def _leaves(key: str, value: object) -> Iterator[tuple[str, object]]:
    """Every value that is not a mapping, with its key in dots."""
    if isinstance(value, dict):
        for name, child in value.items():
            yield from _leaves(f"{key}.{name}", child)
    else:
        yield key, value


def _warn_of_differences() -> None:
    """Warn if `params.yaml` differs from what `conf/` composes; the stage runs with `params.yaml` all the same."""
    if not paths.CONF.is_dir():
        return
    # In a subprocess: importing stages.config.compose here would make every stage depend on every section's code.
    command = [sys.executable, "-m", "stages.config", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        advice = "run `python -m stages.config` to write it again, or change conf/ to match"
        lines = "\n  ".join(done.stderr.strip().splitlines())
        log.warning("warning: params.yaml differs from what conf/ composes (%s):\n  %s", advice, lines)
