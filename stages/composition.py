"""`conf/` -> `params.yaml`, by Hydra, byte for byte as `dvc exp run` writes it; and whether the two still agree."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from stages import params, paths
from stages.errors import ParamsError

log = logging.getLogger(__name__)
ABSENT = "(absent)"


def composed(overrides: Sequence[str] = (), conf: Path = paths.CONF) -> str:
    """Compose `conf/` with Hydra's overrides, as `policy=people` or `train.lr=0.01`, into the text of a params file.

    Raises:
        ParamsError: if Hydra cannot compose, or the result is no set of valid parameters.
    """
    try:
        with initialize_config_dir(str(conf.absolute()), version_base=None):
            config = compose("config", overrides=list(overrides))
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ParamsError(f"conf/ does not compose: {' '.join(str(error).split())}") from error
    params.check(OmegaConf.to_container(config))  # type: ignore[arg-type]
    return OmegaConf.to_yaml(config)


def differing(ours: Any, theirs: Any, key: str = "") -> dict[str, tuple[Any, Any]]:
    """The leaves in which two params differ: key in dots -> the two values."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found: dict[str, tuple[Any, Any]] = {}
        for name in [*ours, *(name for name in theirs if name not in ours)]:
            found |= differing(ours.get(name, ABSENT), theirs.get(name, ABSENT), f"{key}.{name}" if key else name)
        return found
    return {} if ours == theirs else {key: (ours, theirs)}


def drift(values: dict[str, Any], overrides: Sequence[str] = ()) -> list[str]:
    """A line for each key in which a params file's `values` are not what `conf/` composes."""
    found = differing(values, yaml.safe_load(composed(overrides)))
    return [f"{key}: {paths.PARAMS} has {ours!r}, conf/ composes {theirs!r}" for key, (ours, theirs) in found.items()]


def warn_of_drift(values: dict[str, Any]) -> None:
    """Warn when a params file's `values` are not what `conf/` composes; a run goes on with `values` all the same."""
    if not paths.CONF.is_dir():
        return
    try:
        lines = drift(values)
    except ParamsError as error:
        lines = [str(error)]
    if lines:
        advice = "write it anew with `python -m stages.params`, or make conf/ say the same"
        log.warning("warning: params.yaml is not what conf/ composes (%s):\n  %s", advice, "\n  ".join(lines))


def main() -> int:
    """Write `params.yaml`, or with --check compare it: 0 if it is what `conf/` composes, else 1."""
    parser = argparse.ArgumentParser(prog="python -m stages.params", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="compare only; exit code 1 and the differing keys if they differ"
    )
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, as policy=people train.lr=0.01")
    options = parser.parse_args()
    text = composed(options.overrides)
    if not options.check:
        with paths.replacing(paths.PARAMS) as aside:
            aside.write_text(text, encoding="utf-8")
        log.info("wrote %s", paths.PARAMS)
        return 0
    values = params.read()
    params.check(values)
    lines = drift(values, options.overrides)
    for line in lines:
        log.error(line)
    if not lines and text != paths.PARAMS.read_text(encoding="utf-8"):
        log.error("%s was edited by hand, if without effect; `python -m stages.params` writes it anew", paths.PARAMS)
        return 1
    return 1 if lines else 0
