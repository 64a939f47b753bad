"""A folder of labelled pictures -> `conf/policy/NAME.yaml`, a policy for its labels."""

from __future__ import annotations

import argparse
import difflib
import logging
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from stages.config.compose import PACKAGE, compose
from stages.config.extract import LABEL, VERDICTS
from stages.config.keep import NAME
from stages.folder import listing
from stages.folder.contents import Contents
from stages.folder.describing import described
from stages.philomena.tags import PREFIXES
from stages.workspace import paths
from stages.workspace.errors import FolderError, ParamsError, run
from stages.workspace.files import replacing

log = logging.getLogger(__name__)

HARMLESS = (
    "safe", "clean", "harmless", "ok", "okay", "good", "allowed", "normal", "neutral", "negative", "sfw", "other",
    "others", "rest", "none", "nothing",
)  # fmt: skip
"""Names of labels that are taken to be the harmless one; without any of them, the most frequent label is."""
OTHERS = "others"
MOST_LABELS = 50


@dataclass
class Survey:
    """The labels and tags of a folder's files, none of which is opened."""

    files: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    tags: Counter[str] = field(default_factory=Counter)
    """Of what pictures show, labels included."""
    exclusive: bool = True
    """Every file has exactly one label."""
    not_utf8: list[str] = field(default_factory=list)


def main() -> None:
    options = _options()
    if not NAME.fullmatch(options.name):
        raise ParamsError(f"{options.name!r} is not a valid policy name; use lower-case letters, digits and _")
    target = paths.CONF / "policy" / f"{options.name}.yaml"
    if target.exists():
        raise ParamsError(f"{target} exists already; choose another name, or remove it")
    folder = options.folder or Path(yaml.safe_load(compose(["source=folder"]))["download"]["folder"]["pictures"])
    found = survey(folder)
    if found.not_utf8:
        raise FolderError(
            f"{folder}/{found.not_utf8[0]} has a name that is not UTF-8 (as have {len(found.not_utf8) - 1} others), "
            "which `dvc add` cannot take; rename it, for example with convmv"
        )
    policy = propose(options.name, found, folder, options.labels or (), options.harmless)
    text = _text(policy, found, folder)
    check(text, options.name)
    with replacing(target) as aside:
        aside.write_text(text, encoding="utf-8")
    log.info("wrote %s, %s: %s", target, policy["kind"], " > ".join(policy["labels"]))
    log.info(
        "the order of labels is that of severity%s; next: python -m stages.config source=folder policy=%s",
        ", the last one is harmless" if policy["kind"] != "multilabel" else "",
        options.name,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stages.folder.policy",
        description="Write a policy for the labels of a folder of pictures to conf/policy/.",
    )
    parser.add_argument("name", help="of the policy")
    parser.add_argument("--folder", type=Path, help="the folder (default: that of conf/source/folder.yaml)")
    parser.add_argument("--harmless", metavar="LABEL", help="the label that nothing needs to be done about")
    parser.add_argument(
        "--labels", nargs="+", metavar="TAG", help="tags to tell apart (default: the labels, or else all tags)"
    )
    return parser.parse_args()


def survey(folder: Path) -> Survey:
    """Count the labels and tags of a folder.

    Raises:
        FolderError: if the folder or its metadata cannot be read.
    """
    found = Survey()
    with Contents() as contents:
        for entry, known in described(listing.checked(folder), contents):
            if entry.reason == "not_utf8":
                found.not_utf8.append(entry.path)
            if known:
                found.files += 1
                found.labels.update(known.labels)
                found.tags.update(tag for tag in known.tags if not tag.startswith(PREFIXES))
                found.exclusive &= len(known.labels) == 1
    return found


def propose(name: str, found: Survey, folder: Path, chosen: Sequence[str], harmless: str | None) -> dict[str, Any]:
    """A policy as in `conf/`.

    Args:
        name: of the policy.
        found: in the folder.
        folder: for error messages.
        chosen: tags that are its labels; by default those that the folder calls labels, or else all tags.
        harmless: the harmless label, if the caller knows it.

    Raises:
        FolderError: if there is nothing to tell apart, too much, or a label that does not exist.
    """
    for tag in (*chosen, *([harmless] if harmless else ())):
        if tag not in found.tags:
            near = difflib.get_close_matches(tag, found.tags, 3)
            raise FolderError(f"no picture of {folder} has the tag {tag!r}; {_advice(near)}")
    wanted = list(dict.fromkeys(chosen)) or sorted(found.labels or found.tags)
    if not wanted:
        raise FolderError(
            f"{folder} has no file with a label; put pictures into a folder for each label, as {folder}/cats/tabby.png"
        )
    exclusive = found.exclusive and not chosen
    if harmless and not (exclusive and harmless in wanted):
        raise FolderError(
            f"{harmless} cannot be the harmless label: that is one of labels of which each picture has exactly one; "
            "leave --harmless out, or write the policy by hand"
        )
    if exclusive and len(wanted) == 1:
        raise FolderError(
            f"all {found.files} files of {folder} have the label {wanted[0]}; add a folder of pictures without it, "
            "which the model has to tell from them"
        )
    if len(wanted) > MOST_LABELS:
        raise FolderError(
            f"{folder} has {len(wanted):,} labels or tags; choose those to tell apart, at most {MOST_LABELS}, "
            f"with --labels, for example --labels {found.tags.most_common(1)[0][0]!r}"
        )
    if exclusive:
        last = harmless or _harmless(found.labels)
        wanted = [*(label for label in wanted if label != last), last]
    rules: dict[str, dict[str, Any]] = {}
    for tag in wanted:
        rules[_label(tag, rules)] = {"any": [tag]}
    if not exclusive and len(wanted) == 1:
        rules[_label(OTHERS, rules)] = {"rest": True}
    kind = "multilabel" if not exclusive and len(wanted) > 1 else "binary" if len(rules) == 2 else "multiclass"
    return {"name": name, "kind": kind, "labels": rules, "overlap": "exclude", "min_tags": 0}


def _advice(near: Sequence[str]) -> str:
    return f"did you mean {' or '.join(near)}?" if near else "look at the names of its folders, or its metadata"


def _harmless(labels: Counter[str]) -> str:
    named = [label for label in HARMLESS if label in labels]
    return named[0] if named else max(sorted(labels), key=lambda label: labels[label])


def _label(tag: str, taken: dict[str, Any]) -> str:
    """A tag as a label's name, which becomes a column and a word in Discord."""
    if "${" in tag or tag == "???":
        raise FolderError(f"{tag!r} cannot be a label, since Hydra reads it as a reference; rename it")
    label = re.sub(r"[^\w -]", "_", tag)[:60].strip(" -") or "label"
    label = label if re.match(r"\w", label) else f"label {label}"
    while label in taken or label in VERDICTS or not LABEL.fullmatch(label):
        label += "_"
    return label


def _text(policy: dict[str, Any], found: Survey, folder: Path) -> str:
    tags = [rule["any"][0] for rule in policy["labels"].values() if "any" in rule]
    counts = ", ".join(f"{found.tags[tag]} {tag}" for tag in tags)
    body = yaml.safe_dump({"extract": {"policy": policy}}, sort_keys=False, allow_unicode=True, width=120)
    return f"{PACKAGE}\n# Labels of {folder}, in order of severity: {counts}.\n{body}"


def check(text: str, name: str) -> None:
    """Check a policy as `conf/` would be with it.

    Raises:
        ParamsError: if it is invalid.
    """
    with tempfile.TemporaryDirectory() as aside:
        draft = Path(shutil.copytree(paths.CONF, Path(aside) / "conf"))
        (draft / "policy" / f"{name}.yaml").write_text(text, encoding="utf-8")
        compose(["source=folder", f"policy={name}"], draft)


if __name__ == "__main__":
    run(main)
