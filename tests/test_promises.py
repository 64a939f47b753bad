"""What `dvc.yaml`, `params.yaml`, `paths.py` and the imports promise each other."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages import params, paths
from stages.composition import composed

ROOT = Path(__file__).parents[1]
VERBS = ("restore", "extract", "download", "split", "train", "test")
STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
SAMPLE: dict[str, Any] = yaml.safe_load((ROOT / "data/sample/dvc.yaml").read_text())["stages"]["sample"]
SOURCES = sorted(path for package in ("stages", "bot") for path in (ROOT / package).rglob("*.py"))


def module_file(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.exists():
            return file
    return None


def imports(file: Path) -> set[Path]:
    """The first-party files that a file imports or reads, wherever in it; but not what only its command line needs."""
    if file.suffix != ".py":
        return set()
    tree = ast.parse(file.read_text())
    tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and "__main__" in ast.unparse(node.test))]
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    found = {module_file(name) for name in names if name.split(".")[0] in ("stages", "bot")}
    return {file for file in found if file and file.stat().st_size > 0} | templates(file)


def templates(file: Path) -> set[Path]:
    """The files of the folder `templates` beside a module that names it."""
    return set(file.with_name("templates").iterdir()) if '"templates"' in file.read_text() else set()


def closure(file: Path) -> set[Path]:
    seen: set[Path] = set()
    ahead = {file}
    while ahead:
        seen |= ahead
        ahead = set().union(*(imports(file) for file in ahead)) - seen
    return seen


def outs(stage: dict[str, Any]) -> set[str]:
    named = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    return {next(iter(out)) if isinstance(out, dict) else out for out in named}


def test_params_yaml_is_what_conf_composes() -> None:
    assert (ROOT / "params.yaml").read_text() == composed(conf=ROOT / "conf")


@pytest.mark.parametrize("group", ["source", "policy", "model", "trainer", "experiment"])
def test_every_group_of_conf_composes_to_valid_params(group: str) -> None:
    options = sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
    assert options
    for option in options:
        values = yaml.safe_load(composed([f"{group}={option}"], conf=ROOT / "conf"))
        params.check(values)


def test_the_root_has_exactly_the_six_stages() -> None:
    assert tuple(STAGES) == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_code_deps_are_the_import_closure(verb: str) -> None:
    listed = {dep for dep in STAGES[verb]["deps"] if dep.startswith("stages/")}
    needed = {str(file.relative_to(ROOT)) for file in closure(ROOT / f"stages/{verb}.py")}
    assert listed - needed == set(), "listed without need"
    assert {dep for dep in needed if dep not in listed} == set(), "needed but not listed"


def test_the_sample_stages_code_deps_are_its_import_closure() -> None:
    listed = {dep for dep in SAMPLE["deps"] if dep.startswith("stages/")}
    assert listed == {str(file.relative_to(ROOT)) for file in closure(ROOT / "stages/booru/sample.py")}


@pytest.mark.parametrize("verb", VERBS)
def test_params_are_the_section_of_the_stages_name(verb: str) -> None:
    assert STAGES[verb]["params"] == [verb]
    assert STAGES[verb]["cmd"] == f"python -m stages.{verb}"


def test_paths_are_those_of_dvc_yaml() -> None:
    listed = {path for stage in STAGES.values() for path in outs(stage)}
    named = {value for value in vars(paths).values() if isinstance(value, Path)} | set(paths.SPLITS.values())
    named -= {paths.PARAMS, paths.CONF, paths.SAMPLE_DUMP}
    assert {str(path) for path in named} == listed
    assert outs(SAMPLE) == {str(paths.SAMPLE_DUMP)}


@pytest.mark.parametrize("verb", VERBS)
def test_dvcs_run_cache_takes_every_stage(verb: str) -> None:
    plain = [out for out in STAGES[verb]["outs"] if isinstance(out, dict)]
    assert plain == [], "an uncached out that is no metric or plot keeps a stage out of the run cache"


def test_every_dep_that_is_data_is_an_out() -> None:
    made = {path for stage in STAGES.values() for path in outs(stage)}
    data = {dep for stage in STAGES.values() for dep in stage["deps"] if not dep.startswith("stages/")}
    assert data - made == {"${restore.dump}"}


def test_no_module_imports_a_verb() -> None:
    verbs = {ROOT / f"stages/{verb}.py" for verb in VERBS}
    offenders = [(file.name, verb.name) for file in SOURCES for verb in imports(file) & verbs]
    assert offenders == []


@pytest.mark.parametrize("file", SOURCES + sorted((ROOT / "tests").rglob("*.py")), ids=lambda file: file.stem)
def test_no_file_has_300_lines(file: Path) -> None:
    assert len(file.read_text().splitlines()) < 300


def test_the_bot_imports_neither_torch_nor_pandas() -> None:
    modules = [str(file.relative_to(ROOT).with_suffix("")).replace("/", ".") for file in (ROOT / "bot").glob("*.py")]
    names = [name.removesuffix(".__init__") for name in modules if not name.endswith("__main__")]
    code = (
        f"import sys; {'; '.join(f'import {name}' for name in names)}; print({{'torch', 'pandas'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_no_conf_reads_the_environment_or_the_clock() -> None:
    for file in (ROOT / "conf").rglob("*.yaml"):
        text = file.read_text()
        assert "${oc.env" not in text, f"{file}: a secret would land in params.yaml, and so in git"
        assert "${now" not in text, f"{file}: never reproducible"
