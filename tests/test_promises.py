"""What `dvc.yaml`, `params.yaml`, `paths.py` and the imports promise each other."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import grimp
import pytest
import yaml
from dvc_render.vega import VegaRenderer

from stages.catalogue.corrections import read
from stages.config.compose import check, compose
from stages.config.download import Download
from stages.workspace import paths

ROOT = Path(__file__).parents[1]
VERBS = ("restore", "extract", "download", "split", "train", "test")
STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
SAMPLE: dict[str, Any] = yaml.safe_load((ROOT / "data/sample/dvc.yaml").read_text())["stages"]["sample"]
FOLDER: dict[str, Any] = yaml.safe_load((ROOT / "data/folder/dvc.yaml").read_text())["stages"]["folder"]["do"]
HOSTS = get_args(get_type_hints(Download)["host"])
"""What `${download.host}` may be: the code that opens the picture host."""


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("stages", "bot", exclude_type_checking_imports=True, cache_dir=None)


def module_file(name: str) -> Path:
    path = ROOT.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def closure(*modules: str, without: tuple[str, ...] = ()) -> set[str]:
    """The first-party files that these modules import, directly or not; rooms in `without` are not entered."""
    seen: set[str] = set()
    ahead = set(modules)
    while ahead:
        seen |= ahead
        found = set().union(*(graph().find_modules_directly_imported_by(module) for module in ahead))
        rooms = tuple(f"{room}." for room in without)
        ahead = {module for module in found if not f"{module}.".startswith(rooms)} - seen
    parents = {name.rpartition(".")[0] for name in seen}
    return {str(module_file(name).relative_to(ROOT)) for name in seen | parents if name not in ("", "stages")}


def code_deps(stage: dict[str, Any]) -> set[str]:
    return {dep for dep in stage["deps"] if dep.startswith("stages/")}


def within(file: str, deps: set[str]) -> bool:
    return any(file == dep or file.startswith(f"{dep}/") for dep in deps)


def outs(stage: dict[str, Any]) -> set[str]:
    named = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    return {next(iter(out)) if isinstance(out, dict) else out for out in named}


def test_params_yaml_is_what_conf_composes() -> None:
    assert (ROOT / "params.yaml").read_text() == compose(conf=ROOT / "conf")


@pytest.mark.parametrize("group", ["source", "policy", "model", "trainer", "experiment"])
def test_every_group_of_conf_composes_to_valid_params(group: str) -> None:
    options = sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
    assert options
    for option in options:
        values = yaml.safe_load(compose([f"{group}={option}"], conf=ROOT / "conf"))
        check(values)
        read(ROOT / values["extract"]["corrections"])


def test_the_root_has_exactly_the_six_stages() -> None:
    assert tuple(STAGES) == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_the_rooms_in_deps_are_the_import_closure(verb: str) -> None:
    deps = code_deps(STAGES[verb])
    needed = closure(f"stages.{verb}", without=("stages.sample", "stages.folder")) - {"stages/config/__init__.py"}
    assert {file for file in needed if not within(file, deps)} == set(), "imported, but not in deps"
    assert {dep for dep in deps if not any(within(file, {dep}) for file in needed)} == set(), "in deps without need"


@pytest.mark.parametrize("host", HOSTS)
def test_what_opens_the_picture_host_is_in_the_deps_of_download_with_all_that_it_imports(host: str) -> None:
    module = host.removesuffix(".py").replace("/", ".")
    if (ROOT / host).is_dir():
        module += ".server"
    deps = code_deps(STAGES["download"]) | {host}
    needed = closure(module) - {"stages/config/__init__.py"}
    assert {file for file in needed if not within(file, deps)} == set()


@pytest.mark.parametrize(("room", "stage"), [("sample", SAMPLE), ("folder", FOLDER)])
def test_the_rooms_of_a_stage_that_makes_a_dump_are_its_import_closure(room: str, stage: dict[str, Any]) -> None:
    deps = code_deps(stage)
    needed = closure(f"stages.{room}.__main__") - {"stages/config/__init__.py"}
    assert {file for file in needed if not within(file, deps)} == set()
    assert {dep for dep in deps if not any(within(file, {dep}) for file in needed)} == set()


@pytest.mark.parametrize("verb", VERBS)
def test_a_stages_code_is_its_verb_its_section_and_at_most_five_rooms(verb: str) -> None:
    files = [f"stages/{verb}.py", f"stages/config/{verb}.py"]
    code = [dep for dep in STAGES[verb]["deps"] if dep.startswith("stages/") or dep == "${download.host}"]
    assert code[:2] == files
    assert len(code) <= 7
    assert all((ROOT / dep).is_dir() for dep in code[2:] if "$" not in dep)


def test_packages_hold_no_code_that_is_no_dep() -> None:
    tree = ast.parse((ROOT / "stages/config/__init__.py").read_text())
    assert all(isinstance(node, ast.Expr) for node in tree.body), "stages/config/__init__.py is a dep of no stage"


def test_the_package_of_all_stages_holds_nothing_that_an_output_depends_on() -> None:
    """`stages/__init__.py` is a dep of no stage either. It sets what Ctrl-C does, before anything is imported."""
    docstring, *imports, statement = ast.parse((ROOT / "stages/__init__.py").read_text()).body
    assert isinstance(docstring, ast.Expr)
    assert [ast.unparse(node) for node in imports] == ["import signal", "import sys"]
    assert isinstance(statement, ast.If)
    assert [ast.unparse(node) for node in statement.body] == ["signal.signal(signal.SIGINT, signal.SIG_DFL)"]


@pytest.mark.parametrize("verb", VERBS)
def test_params_are_the_section_of_the_stages_name(verb: str) -> None:
    assert STAGES[verb]["params"] == [verb]
    assert STAGES[verb]["cmd"] == f"python -m stages.{verb}"


def test_paths_are_those_of_dvc_yaml() -> None:
    listed = {path for stage in STAGES.values() for path in outs(stage)}
    named = {value for value in vars(paths).values() if isinstance(value, Path)} | set(paths.SPLITS.values())
    folder = {paths.FOLDER_DUMP, paths.FOLDER_LEFT_OUT, paths.FOLDER_SUMMARY}
    named -= {paths.PARAMS, paths.CONF, paths.SAMPLE_DUMP, *folder}
    assert {str(path) for path in named} == listed
    assert outs(SAMPLE) == {str(paths.SAMPLE_DUMP)}
    assert outs(FOLDER) == {str(path) for path in folder}


@pytest.mark.parametrize("verb", VERBS)
def test_dvcs_run_cache_takes_every_stage(verb: str) -> None:
    plain = [out for out in STAGES[verb]["outs"] if isinstance(out, dict)]
    assert plain == [], "an uncached out that is no metric or plot keeps a stage out of the run cache"


def test_every_dep_that_is_data_is_an_out() -> None:
    made = {path for stage in STAGES.values() for path in outs(stage)}
    data = {dep for stage in STAGES.values() for dep in stage["deps"] if not dep.startswith("stages/")}
    assert data - made == {"${restore.dump}", "${extract.corrections}", "${download.host}"}


def test_the_bot_imports_neither_torch_nor_pandas() -> None:
    modules = [str(file.relative_to(ROOT).with_suffix("")).replace("/", ".") for file in (ROOT / "bot").rglob("*.py")]
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


def test_the_page_of_plots_holds_the_libraries_that_dvcs_own_page_loads() -> None:
    page = (ROOT / ".dvc/plots.html").read_text()
    libraries = re.findall(r"/npm/([\w-]+)@([\d.]+)", VegaRenderer.SCRIPTS)
    assert len(libraries) == 3
    assert [
        f"{name} {version}" for name, version in libraries if f"{name} {version}" not in " ".join(page.split())
    ] == []
    assert not re.search(r"<script[^>]*src|<link", page)
