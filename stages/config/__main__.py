"""`conf/` -> `params.yaml`: `python -m stages.config [policy=people train.lr=0.01 ...] [--check]`."""

from __future__ import annotations

import argparse
import logging

from stages.config.compose import check, compose, differences
from stages.workspace import parameters, paths
from stages.workspace.errors import run
from stages.workspace.files import replacing

log = logging.getLogger(__name__)


def main() -> int:
    """Write `params.yaml`, or with --check compare it: 0 if it is what `conf/` composes, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.config", description="Compose conf/ into params.yaml, which the stages read."
    )
    parser.add_argument(
        "--check", action="store_true", help="compare only; exit code 1 and the differing keys if they differ"
    )
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, such as policy=people train.lr=0.01")
    options = parser.parse_args()
    text = compose(options.overrides)
    if options.check:
        return _compare(text)
    with replacing(paths.PARAMS) as aside:
        aside.write_text(text, encoding="utf-8")
    log.info("wrote %s", paths.PARAMS)
    return 0


def _compare(text: str) -> int:
    values = parameters.read()
    check(values)
    lines = differences(values, text)
    if not lines and text != paths.PARAMS.read_text(encoding="utf-8"):
        lines = [f"{paths.PARAMS} was edited by hand, with no effect; write it anew with `python -m stages.config`"]
    for line in lines:
        log.error(line)
    return 1 if lines else 0


if __name__ == "__main__":
    run(main)
