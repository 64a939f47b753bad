"""`conf/` -> `params.yaml`: `python -m stages.config [policy=people train.lr=0.01 ...] [--check]`."""

from __future__ import annotations

import argparse
import contextlib
import logging

import yaml

from stages.config.compose import check, compose, diff, differences
from stages.workspace import parameters, paths
from stages.workspace.errors import ParamsError, run
from stages.workspace.files import replacing

log = logging.getLogger(__name__)


def main() -> int:
    """Write `params.yaml`; with --check, compare it: exit code 0 if it is what `conf/` composes, else 1."""
    options = _options()
    text = compose(options.overrides)
    if options.check:
        return _compare(text)
    _write(text)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stages.config", description="Compose conf/ into params.yaml, which the stages read."
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; print the keys that differ, and exit with 1 if any do"
    )
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, for example policy=people train.lr=0.01")
    return parser.parse_args()


def _write(text: str) -> None:
    """Replace `params.yaml`, and log each key that changes: it may have held an experiment's values until now."""
    with contextlib.suppress(ParamsError):  # no file yet, or one that cannot be read
        for key, (old, new) in diff(parameters.read(), yaml.safe_load(text)).items():
            log.info("%s: %r -> %r", key, old, new)
    with replacing(paths.PARAMS) as aside:
        aside.write_text(text, encoding="utf-8")
    log.info("wrote %s", paths.PARAMS)


def _compare(text: str) -> int:
    values = parameters.read()
    check(values)
    lines = differences(values, text)
    if not lines and text != paths.PARAMS.read_text(encoding="utf-8"):
        # Comments or another layout: harmless, but the next composition would silently drop them.
        lines = [f"{paths.PARAMS} was edited by hand without effect; write it again with `python -m stages.config`"]
    for line in lines:
        log.error(line)
    return 1 if lines else 0


if __name__ == "__main__":
    run(main)
