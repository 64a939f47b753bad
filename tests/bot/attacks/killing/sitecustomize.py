"""Python reads this at its start, where PYTHONPATH leads here: the bot's process kills itself at a chosen moment.

From when the file MLPY_TEST_ARMED is there, moments are counted: before and after each commit of the database, and each
request that changes something at Discord. At number MLPY_TEST_KILL_AT the process sends itself SIGKILL. Each moment is
noted in that file.
"""

import os
import signal
import sys
from pathlib import Path


def _watch() -> None:
    import aiohttp
    from sqlalchemy.engine.default import DefaultDialect

    armed, at = Path(os.environ["MLPY_TEST_ARMED"]), int(os.environ["MLPY_TEST_KILL_AT"])
    moments: list[str] = []

    def moment(name: str) -> None:
        if not armed.exists():
            return
        moments.append(name)
        with armed.open("a") as file:
            file.write(f"{name}\n")
        if len(moments) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(owner: type, name: str, describe) -> None:
        original = getattr(owner, name)

        def commit(self, *arguments):
            moment("before commit")
            original(self, *arguments)
            moment("after commit")

        async def request(self, method, url, **options):
            watched = describe(method, str(url))
            if watched:
                moment(f"before {watched}")
            response = await original(self, method, url, **options)
            if watched:
                moment(f"after {watched}")
            return response

        setattr(owner, name, request if describe else commit)

    def describe(method: str, url: str) -> str:
        if method == "PATCH" and "/guilds/" in url:
            return "PATCH member"
        changes = method in ("POST", "DELETE", "PATCH") and "/channels/" in url
        return (
            f"{method} {'message' if method != 'POST' else 'to ' + url.split('/channels/')[1].split('/')[0]}"
            if changes
            else ""
        )

    around(DefaultDialect, "do_commit", None)
    around(aiohttp.ClientSession, "_request", describe)


if sys.orig_argv[1:3] == ["-m", "bot"] and "MLPY_TEST_KILL_AT" in os.environ:
    _watch()
