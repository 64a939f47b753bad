"""Who the crawler says it is."""

from __future__ import annotations

import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def user_agent(contact: str | None) -> str:
    """The User-Agent header: the project's version and address as in pyproject.toml, and whom to contact."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    about = [f"+{project['urls']['Repository']}", "dataset crawler", *([f"contact: {contact}"] if contact else [])]
    return f"MLpy/{project['version']} ({'; '.join(about)})"
