"""A page to look at likely wrong labels, one picture at a time: each answer is a row of the source's corrections."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import getpass
import logging
import subprocess
from pathlib import Path

from stages.catalogue import corrections
from stages.config.download import Download
from stages.config.extract import Extract
from stages.labelling import queue
from stages.labelling.pictures import Pictures
from stages.labelling.server import HOST, Labelling, serve
from stages.workspace import paths
from stages.workspace.errors import MLpyError, ParamsError, run
from stages.workspace.parameters import load

log = logging.getLogger(__name__)


def main() -> None:
    options = _options()
    file = _file()
    corrections.read(file)  # an error in it is told now, not at the first answer
    pictures = queue.read()
    labelling = Labelling(pictures, file, Pictures(paths.SHARDS, load(Download).shard_size), options.who or _user())
    likely = sum(item.is_likely for item in pictures.items.values())
    log.info(
        "%d pictures with a score, %d of them with a likely wrong label; answers go into %s",
        *(len(pictures.items), likely, file),
    )
    try:
        asyncio.run(serve(labelling, options.port, _say_address))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise MLpyError(f"port {options.port} of {HOST} cannot be used; choose another with --port") from error


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stages.corrections", description=__doc__)
    parser.add_argument(
        "--port", type=_port, default=0, help="of the page, on this machine alone; by default a free one"
    )
    parser.add_argument("--who", help="name beside your answers; by default git's user.name")
    return parser.parse_args()


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**16:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 1 to 65535")
    return int(text)


def _file() -> Path:
    """The file of corrections of the source in `params.yaml`."""
    if not (name := load(Extract).corrections):
        raise ParamsError(
            "extract.corrections names no file; set it in conf/source/, for example to conf/corrections/mine.csv"
        )
    return Path(name)


def _user() -> str:
    named = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, check=False).stdout.strip()
    with contextlib.suppress(KeyError, OSError):  # a container's user may have no name
        return named or getpass.getuser()
    return ""


def _say_address(address: str) -> None:
    print(address, flush=True)  # noqa: T201 (the command's answer)
    log.info("Open this address in a browser on this machine. Ctrl-C ends the server; every answer is kept.")


if __name__ == "__main__":
    run(main)
