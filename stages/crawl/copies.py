"""Where shards are kept outside of the picture store: in the workspace, and in DVC's cache."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import yaml

from stages.workspace import shards
from stages.workspace.paths import SHARDS

log = logging.getLogger(__name__)

LOCK = Path("dvc.lock")


def copies() -> Iterator[Path]:
    """The workspace's shards, and those in DVC's cache that `dvc.lock` names: DVC deletes outs before a stage runs."""
    yield from shards.files(SHARDS)
    if LOCK.exists():
        yield from _in_dvc_cache()


def _in_dvc_cache() -> list[Path]:
    from dvc.exceptions import DvcException  # only here: it takes a third of a second
    from dvc.repo import Repo

    try:
        outs = yaml.safe_load(LOCK.read_text(encoding="utf-8"))["stages"]["download"]["outs"]
        (folder,) = (out["md5"] for out in outs if out["path"] == SHARDS.as_posix())
        with Repo() as repo:
            cache = repo.cache.local
            listing = json.loads(Path(cache.oid_to_path(folder)).read_bytes())
            return [Path(cache.oid_to_path(entry["md5"])) for entry in listing]
    except FileNotFoundError:
        return []  # the cache lacks it
    except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError, DvcException) as error:
        log.warning("the shards that %s names cannot be looked for (%s)", LOCK, type(error).__name__)
        return []
