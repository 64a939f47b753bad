"""For `dvc exp run`: checks all parameters while DVC has Hydra compose `conf/`, before DVC changes anything.

DVC composes by itself, without `stages.config`, but first imports what it finds in this folder (`hydra.plugins_path` in
`.dvc/config`). Hydra 1.3 has no callback for a composition, so `conf/config.yaml` has it evaluate a resolver instead.
"""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).parents[3]
sys.path.append(str(ROOT))  # DVC runs from elsewhere

from stages.config.compose import RESOLVER, check, plain  # noqa: E402
from stages.workspace.errors import ParamsError  # noqa: E402


def _checked(_root_: DictConfig) -> list[str]:
    """The resolver: ends DVC with one sentence if a parameter is invalid."""
    try:
        check(plain(_root_), ROOT / "conf")
    except ParamsError as error:
        # DVC would call any other exception unexpected, and ask to report it. It puts the workspace back either way.
        sys.exit(f"error: {error}")
    return []


OmegaConf.register_new_resolver(RESOLVER, _checked, replace=True)
