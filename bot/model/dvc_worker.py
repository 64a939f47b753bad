"""The child process that asks gto and DVC, so that the memory and the start-up of neither are in the bot.

`python -P bot/model/dvc_worker.py` reads one request from stdin and writes one answer to stdout, both JSON objects. It
runs beside the bot, not in it: nothing of `bot` or `stages` can be imported here.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

Answer = dict[str, Any]


def assigned(repository: str, name: str, asked: str) -> Answer:
    """What gto says `asked`, such as `moderator#prod`, `moderator@v1.2.0` or `moderator@latest`, names.

    `found` has version, commit and, of a stage, the time of its assignment. gto itself would pick one of all that are
    in the stage by that time, and at random among those of one second: so all are told, and the caller picks.
    `known` has name, whether it is registered still, and stages of every version there is, if `found` is empty;
    `deprecated`: whether that goes for the whole artifact.
    """
    import gto.api
    from gto.exceptions import ArtifactNotFound

    stage = asked.partition("#")[2]
    try:
        versions = gto.api.show(repository, asked, versions_per_stage=-1)
        found = [
            {
                "version": version["version"],
                "commit": version["commit_hexsha"],
                "at": max(
                    (each["created_at"].timestamp() for each in version["stages"] if each["stage"] == stage), default=0
                ),
            }
            for version in versions
        ]
        if found:
            return {"found": found}
        every = gto.api.show(repository, name, deprecated=True)
        known = [
            {
                "version": version["version"],
                "registered": version["is_active"],
                "stages": [each["stage"] for each in version["stages"]],
            }
            for version in every
        ]
        deprecated = not gto.api.show(repository, deprecated=True)[name]["active"]
    except ArtifactNotFound:
        return {"found": [], "known": [], "deprecated": False}
    return {"found": [], "known": known, "deprecated": deprecated}


def fetched(repository: str, commit: str, files: Mapping[str, str]) -> Answer:
    """Write `files`, path in the repository at `commit` -> path on this machine, from DVC's cache or else its remote.

    `missing`: the path of a file that neither has.
    """
    import dvc.api

    # A link into DVC's cache would let a change of the one file be a change of the other.
    config = {"cache": {"type": "copy"}}
    filesystem = dvc.api.DVCFileSystem(repository, rev=commit, config=config)
    for path, target in files.items():
        try:
            filesystem.get_file(path, target)
        except FileNotFoundError:
            return {"missing": path}
    return {}


VERBS: dict[str, Callable[..., Answer]] = {"assigned": assigned, "fetched": fetched}


def main() -> None:
    """Answer one request: `verb`, and that function's arguments. `error` in the answer tells why there is none."""
    request = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):  # the answer is all that stdout may hold
        try:
            answer = VERBS[request.pop("verb")](**request)
        except Exception as error:  # gto, DVC and each remote's client have classes of their own
            answer = {"error": f"{type(error).__name__}: {error}"}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
