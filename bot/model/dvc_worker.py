"""The subprocess that runs gto and DVC, which keeps their memory and start-up time out of the bot.

`python -P bot/model/dvc_worker.py` reads one request from stdin and writes one answer to stdout, both JSON objects. It
runs as a script, so it cannot import from `bot` or `stages`.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

Answer = dict[str, Any]


def find_versions(repository: str, name: str, requested: str) -> Answer:
    """What gto finds for `requested`, such as `moderator#prod`, `moderator@v1.2.0` or `moderator@latest`.

    Returns:
        `matches`: version, commit and, for a stage, the time of its assignment (Unix time, s), of every version that
        holds the stage. Given several, gto would pick one by that time, and at random within one second; so the caller
        picks. If there are none: `registered`, with name, stages and activity of every version of the artifact, and
        `deprecated`, whether the whole artifact is.
    """
    import gto.api
    from gto.exceptions import ArtifactNotFound

    stage = requested.partition("#")[2]
    try:
        matches = [
            {"version": row["version"], "commit": row["commit_hexsha"], "at": _assigned_at(row, stage)}
            for row in gto.api.show(repository, requested, versions_per_stage=-1)
        ]
        if matches:
            return {"matches": matches}
        registered = [
            {
                "version": row["version"],
                "active": row["is_active"],
                "stages": [assignment["stage"] for assignment in row["stages"]],
            }
            for row in gto.api.show(repository, name, deprecated=True)
        ]
        deprecated = not gto.api.show(repository, deprecated=True)[name]["active"]
    except ArtifactNotFound:
        return {"matches": [], "registered": [], "deprecated": False}
    return {"matches": [], "registered": registered, "deprecated": deprecated}


def _assigned_at(version: Mapping[str, Any], stage: str) -> float:
    times = [row["created_at"].timestamp() for row in version["stages"] if row["stage"] == stage]
    return max(times, default=0.0)


def fetch_files(repository: str, commit: str, files: Mapping[str, str]) -> Answer:
    """Copy files from DVC's cache or else its remote.

    Args:
        repository: its folder.
        commit: full hash.
        files: path in the repository at `commit` -> path on this machine.

    Returns:
        `missing`: the path of a file that neither cache nor remote has; nothing if all were copied.
    """
    import dvc.api

    # With a link into DVC's cache, changing one file would change the other.
    config = {"cache": {"type": "copy"}}
    filesystem = dvc.api.DVCFileSystem(repository, rev=commit, config=config)
    for path, target in files.items():
        try:
            filesystem.get_file(path, target)
        except FileNotFoundError:
            return {"missing": path}
    return {}


FUNCTIONS: dict[str, Callable[..., Answer]] = {"find_versions": find_versions, "fetch_files": fetch_files}


def main() -> None:
    """Answer one request: `function` and its arguments. On failure, the answer has `error`."""
    request = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):  # only the answer may go to stdout
        try:
            answer = FUNCTIONS[request.pop("function")](**request)
        except Exception as error:  # gto, DVC and the client of each remote have exceptions of their own
            answer = {"error": f"{type(error).__name__}: {error}"}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
