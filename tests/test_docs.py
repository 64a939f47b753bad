"""The READMEs are true: their commands, links, trees, tables and figures."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from discord.ext import commands as cogs
from dvc.cli.parser import get_main_parser

from bot import commands as bot_commands
from bot import settings
from bot.client import PERMISSIONS
from bot.pictures.judging import JudgeCaps
from bot.rules.policy import UNJUDGED
from stages import experiments
from stages.catalogue import corrections
from stages.config.compose import check, compose

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
README, TOUR, CONF, BOT, BENCHMARKS, CONTRIBUTING = (
    Path(name)
    for name in (
        "README.md",
        "stages/README.md",
        "conf/README.md",
        "bot/README.md",
        "tests/benchmarks/README.md",
        "CONTRIBUTING.md",
    )
)
DOCS = (README, TOUR, CONF, BOT, BENCHMARKS, CONTRIBUTING)
PROGRAMS = {"make", "cp", "dvc", "python", "git", "gto", "pip", "source"}
EXAMPLES = {"stages/clean.py", "stages/config/clean.py", "conf/policy/vehicles.yaml", "conf/model/NAME.yaml"}
"""Paths that a reader is told to create."""
MOST_WORDS = 1500
MOST_BYTES = 150_000


@cache
def read(doc: Path) -> str:
    return (ROOT / doc).read_text()


def fenced(language: str, doc: Path) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", read(doc), re.MULTILINE | re.DOTALL)
    return [block for name, block in blocks if name == language]


def prose(doc: Path) -> str:
    return re.sub(r"^```.*?^```$", "", read(doc), flags=re.MULTILINE | re.DOTALL)


def commands(doc: Path) -> Iterator[list[str]]:
    """Each command of the document as words, without assignments before it and with the shell variables filled in."""
    variables: dict[str, str] = {}
    for block in fenced("sh", doc):
        # `moderator#prod` has no comment in it.
        for line in re.sub(r"(?<=\w)#(?=\w)", r"\\#", block).replace("\\\n", " ").splitlines():
            words = shlex.split(string.Template(line).safe_substitute(variables), comments=True)
            if len(words) == 1 and (assignment := re.fullmatch(r"([A-Z]+)=(.*)", words[0])):
                variables[assignment[1]] = assignment[2]
                continue
            if words := [*itertools.dropwhile(lambda word: re.match(r"[A-Z_]+=", word), words)]:
                yield words


COMMANDS = [(doc, words) for doc in DOCS for words in commands(doc)]


def of(program: str) -> Any:
    """Parametrises a test with every command of one program."""
    named = [(doc, words) for doc, words in COMMANDS if Path(words[0]).name == program]
    assert named
    ids = [f"{doc.parent}: {' '.join(words)}" for doc, words in named]
    return pytest.mark.parametrize("words", [words for _, words in named], ids=ids)


def program_files(words: list[str]) -> list[Path]:
    """The files of a command of this repository: `python -m stages.config`, `python tests/benchmarks/board.py`."""
    if words[1] != "-m":
        return [ROOT / words[1]]
    path = ROOT.joinpath(*words[2].split("."))
    return [path.with_suffix(".py")] if path.with_suffix(".py").exists() else [*path.glob("*.py")]


# Commands


@pytest.mark.parametrize("doc", DOCS, ids=str)
def test_the_programs_are_known(doc: Path) -> None:
    assert {Path(words[0]).name for words in commands(doc)} <= PROGRAMS


@of("make")
def test_make_has_the_target_and_the_variables(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [word for word in words[1:] if "=" not in word]
    assert set(targets) <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    variables = {word.split("=")[0] for word in words[1:] if "=" in word}
    assert {
        name for name in variables if not re.search(rf"\$\((or \$\(|filter [a-z]+,\$\()?{name}\)", makefile)
    } == set()


def recipe(*words: str) -> str:
    """The commands by which make would set .venv up."""
    command = ["make", "--dry-run", "--always-make", "setup", *words]
    environment = {name: value for name, value in os.environ.items() if name != "TORCH_BACKEND"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


def test_a_build_of_torch_is_installed_by_uv_alone() -> None:
    chosen, default = recipe("TORCH_BACKEND=cpu"), recipe()
    assert 'uv" pip install --quiet --torch-backend cpu ' in chosen
    assert "torch torchvision" not in chosen
    assert "torch torchvision uv\n" in default
    assert "--torch-backend" not in default
    uv = subprocess.run([BIN / "uv", "pip", "install", "--help"], capture_output=True, text=True, check=True).stdout
    assert re.search(r"--torch-backend <.*possible values: auto, cpu,", " ".join(uv.split()))


@of("python")
def test_a_module_or_script_exists_and_has_the_flags(words: list[str]) -> None:
    if words[1] == "-m" and not words[2].startswith(("stages", "bot")):
        assert importlib.util.find_spec(words[2])
        return
    files = program_files(words)
    assert files
    declared = {
        argument.value
        for file in files
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"
        for argument in call.args
        if isinstance(argument, ast.Constant)
    }
    assert {word for word in words if word.startswith("--")} <= declared | {"--help"}


@of("dvc")
def test_dvc_has_the_subcommand_and_the_flags(words: list[str]) -> None:
    get_main_parser().parse_args(words[1:])


def test_the_bot_accepts_its_commands() -> None:
    runs = [words[3:] for _, words in COMMANDS if words[:3] == ["python", "-m", "bot"] and "--help" not in words]
    assert {words[1] for words in runs} == {"moderator#prod", "workspace"}
    for words in runs:
        settings.read(words, {"MLPY_DISCORD_TOKEN": "token"})


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`conf/` with the example of a policy, and as `policy=mine` what a command writes for a folder."""
    folder = tmp_path_factory.mktemp("conf") / "conf"
    shutil.copytree(ROOT / "conf", folder)
    (example,) = fenced("yaml", CONF)
    for name in ("vehicles", "mine"):
        (folder / f"policy/{name}.yaml").write_text(example)
    return folder


def test_overrides_compose(conf: Path) -> None:
    runs = [
        [word for flag, word in itertools.pairwise(words) if flag == "-S"]
        for _, words in COMMANDS
        if words[:3] == ["dvc", "exp", "run"]
    ]
    runs += [
        [word for word in words[3:] if "=" in word]
        for _, words in COMMANDS
        if words[:3] == ["python", "-m", "stages.config"]
    ]
    for run in runs:
        # Of a sweep its first run.
        overrides = [word.split(",")[0].replace("...", "0" * 64) for word in run]
        check(yaml.safe_load(compose(overrides, conf=conf)))


# Links


def anchors(doc: Path) -> set[str]:
    """The anchors that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(doc), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("doc", DOCS, ids=str)
def test_links_lead_somewhere(doc: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(doc)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / doc).parent / path).resolve() if path else ROOT / doc
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.relative_to(ROOT)), link


@pytest.mark.parametrize("doc", DOCS, ids=str)
def test_paths_that_are_named_exist(doc: Path) -> None:
    named = re.findall(r"`((?:stages|bot|conf|tests)/[\w./-]*)`", prose(doc))
    assert {path for path in named if not (ROOT / path).exists()} - EXAMPLES == set()


def test_configuration_points_to_sections_that_exist() -> None:
    for file in (ROOT / "conf").rglob("*.yaml"):
        for heading, doc in re.findall(r'see "([^"]+)" in (\S+\.md)', file.read_text()):
            assert f"\n## {heading}\n" in read(Path(doc)), file


# README


def test_the_readme_is_short() -> None:
    assert len(re.sub(r"^```mermaid.*?^```$", "", read(README), flags=re.MULTILINE | re.DOTALL).split()) < MOST_WORDS


def test_the_graph_is_dvcs() -> None:
    drawn = subprocess.run([BIN / "dvc", "dag", "--md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert fenced("mermaid", README)[0].split() == drawn.strip().strip("`").split()[1:]


def tree() -> dict[str, str]:
    """Each path of the README's tree -> what it says of it."""
    (block,) = fenced("", README)
    parents: list[str] = []
    lines = {}
    for line in block.splitlines():
        name, text = line.split(maxsplit=1)
        depth = (len(line) - len(line.lstrip())) // 2
        parents = [*parents[:depth], name]
        lines["".join(parents)] = text
    return lines


def test_the_tree_names_what_is_there() -> None:
    assert {path for path in tree() if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("package", ["stages", "bot"])
def test_the_tree_names_every_room(package: str) -> None:
    rooms = {f"{package}/{file.parent.name}/" for file in (ROOT / package).glob("*/__init__.py")}
    assert rooms - tree().keys() == set()


def test_the_tree_tells_which_code_reruns_the_crawl() -> None:
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["download"]
    rooms = {Path(dep).name for dep in stage["deps"] if (ROOT / dep).is_dir() and dep.startswith("stages/")}
    host = yaml.safe_load((ROOT / "params.yaml").read_text())["download"]["host"]
    assert set(re.findall(r"(\w+)/", tree()["stages/download.py"])) == rooms | {Path(host).name}


@pytest.mark.parametrize("picture", ["report", "review"])
def test_a_picture_is_small(picture: str) -> None:
    file = f"tests/pictures/{picture}.webp"
    assert file in read(README)
    assert (ROOT / file).stat().st_size < MOST_BYTES


def test_the_readmes_figures_are_those_of_the_committed_run() -> None:
    assert f"a sample board of {committed('restore/tables.json')['rows']['images']:,} images" in read(README)
    assert f"AUROC of {committed('test/metrics.json')['auroc']:.3f} on the first fold" in " ".join(read(README).split())
    mean = re.search(r"mean over five folds is \[(\S+)\]", read(README))
    assert mean
    assert (
        f"| house | content | probe backbone=tf_efficientnet_lite0 augmented_copies=3 heads=5 | 5 | {mean[1]} "
        in read(BENCHMARKS)
    )


# The guided tour


def committed(path: str) -> Any:
    """A committed file of data/: the one in the workspace may be from another run."""
    command = ["git", "show", f"HEAD:data/{path}"]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def test_the_expected_numbers_are_those_of_the_committed_run() -> None:
    expected = dict(re.findall(r"^\| (\w+) \| (.+) \| \d+ \|$", read(TOUR), re.MULTILINE))
    restored = committed("restore/tables.json")["rows"]
    extracted, split = committed("extract/summary.json"), committed("split/summary.json")
    train, test = committed("train/metrics.json")["val"], committed("test/metrics.json")
    hidden = extracted["dropped"]["merged"] + extracted["dropped"]["removed"]
    intervals = (
        f"{title} {test[name]:.3f} ({test[f'{name}_low']:.3f} to {test[f'{name}_high']:.3f})"
        for title, name in (("AUROC", "auroc"), ("average precision", "average_precision"))
    )
    assert expected == {
        "sample": f"a dump of {restored['images']:,} images, {restored['images'] - hidden:,} of them visible",
        "restore": f"{restored['images']:,} images, {restored['tags']:,} tags, {restored['image_taggings']:,} taggings",
        "extract": f"{extracted['kept']:,} images: "
        + ", ".join(f"{count:,} {label}" for label, count in extracted["labels"].items()),
        "download": ", ".join(
            f"{count:,} {status}" for status, count in committed("download/crawl.json")["pictures"].items()
        ),
        "split": ", ".join(f"{name} {part['pictures']:,}" for name, part in split["splits"].items())
        + f"; {split['left_out']['cross_split_links']} left out as cross-split links",
        "train": f"validation AUROC {train['auroc']:.3f}, average precision {train['average_precision']:.3f}",
        "test": ", ".join(intervals),
    }


def test_the_minutes_of_make_repro_are_the_sum_of_the_stages() -> None:
    seconds = [int(cell) for cell in re.findall(r"^\| \w+ \| .+ \| (\d+) \|$", read(TOUR), re.MULTILINE)]
    setup = re.search(r"^make setup .*: (\d+) s$", read(TOUR), re.MULTILINE)
    assert setup
    assert len(seconds) == 7
    assert f"about {(sum(seconds) + int(setup[1])) / 60:.0f} minutes" in read(README)


def test_the_recall_that_corruptions_cost_is_that_of_the_committed_run() -> None:
    table = read(TOUR).partition("| corruption | recall lost |\n|---|---|\n")[2].partition("\n\n")[0]
    metrics = committed("test/metrics.json")
    assert dict(re.findall(r"^\| (\w+) \| (\S+) \|$", table, re.MULTILINE)) == {
        name: f"{drop:.2f}" for name, drop in metrics["recall_drop"].items()
    }
    assert f"of {metrics['recall']:.2f} on the unchanged pictures" in read(TOUR)


def test_the_flagged_pictures_that_validation_uses_are_counted() -> None:
    splits = committed("split/summary.json")["splits"]
    train, val = (splits[name]["labels"]["flagged"] for name in ("train", "val"))
    assert f"{train + val:,} flagged pictures instead of the {val} of `val`" in " ".join(read(TOUR).split())


# Configuration


@pytest.mark.parametrize("group", ["source", "policy", "model", "trainer", "experiment"])
def test_the_options_of_a_group_are_listed(group: str) -> None:
    row = re.search(rf"^\| \[{group}/\]\({group}\) \| .+ \| (.+) \|$", read(CONF), re.MULTILINE)
    assert row
    assert set(re.findall(r"`(\w+)`", row[1])) == {file.stem for file in (ROOT / "conf" / group).glob("*.yaml")}


def test_the_example_of_corrections_can_be_read(tmp_path: Path) -> None:
    (example,) = fenced("csv", CONF)
    (tmp_path / "example.csv").write_text(example)
    assert len(corrections.read(tmp_path / "example.csv")) == 3


@pytest.mark.parametrize("file", sorted((ROOT / "conf/experiment").glob("*.yaml")), ids=lambda file: file.stem)
def test_an_experiment_opens_with_its_command(file: Path) -> None:
    assert f"`dvc exp run -S experiment={file.stem}`" in file.read_text()


# Benchmarks


def between(marker: str) -> str:
    return read(BENCHMARKS).partition(f"<!-- {marker} -->\n")[2].partition(f"<!-- /{marker} -->")[0]


def test_what_a_perfect_judge_scores_is_computed_from_the_audit() -> None:
    computed = subprocess.run(
        [sys.executable, ROOT / "tests/benchmarks/ceiling.py"], capture_output=True, text=True, check=True
    ).stdout
    assert between("ceiling") == computed


def test_the_comparison_is_computed_from_the_runs() -> None:
    runs = pd.read_csv(ROOT / "tests/benchmarks/experiments.csv")
    assert between("compared") == experiments.table(runs)


# The bot


def slash_commands() -> set[str]:
    names = set()
    for cog in (value for value in vars(bot_commands).values() if isinstance(value, cogs.CogMeta)):
        prefix = f"{cog.__cog_group_name__} " if issubclass(cog, cogs.GroupCog) else ""
        for command in cog.__cog_app_commands__:
            below = command.walk_commands() if hasattr(command, "walk_commands") else [command]
            names |= {f"/{prefix}{each.qualified_name}" for each in below}
    return names


def test_slash_commands_exist() -> None:
    named = re.findall(r"`(/[a-z]+(?: [a-z]+)?)", read(BOT))
    known = slash_commands()
    assert len(known) > 10
    # A second word may be an argument, as in `/threshold flagged delete 0.95`.
    assert {name for name in named if not {name, name.split()[0]} & known} - {"/healthz", "/metrics"} == set()


def test_the_invitation_asks_for_what_the_bot_needs() -> None:
    assert f"permissions={PERMISSIONS.value}\n" in read(BOT)
    needed = {name for name, wanted in PERMISSIONS if wanted}
    table = read(BOT).partition("| permission | what for |")[2].partition("\n\n")[0].casefold()
    words = {
        "view_channel": "view channels",
        "read_messages": "view channels",
        "send_messages_in_threads": "also in threads",
    }
    assert [name for name in needed if words.get(name, name.replace("_", " ")) not in table] == []


def test_the_number_of_frames_is_the_default() -> None:
    assert f"up to {JudgeCaps().frames} frames" in " ".join(read(BOT).split())


def test_every_verdict_of_a_picture_that_cannot_be_judged_is_listed() -> None:
    table = read(BOT).partition("| verdict | meaning |")[2].partition("\n\n")[0]
    assert dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE)) == UNJUDGED


def test_every_threat_has_its_test() -> None:
    rows = re.findall(r"^\| .* \| `(test_\w+(?:\.py)?)` \|$", read(BOT), re.MULTILINE)
    table = read(BOT).partition("| who, with what |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(rows) == len(table) > 10
    files = list((ROOT / "tests").rglob("test_*.py"))
    written = {file.name for file in files} | set(
        re.findall(r"def (test_\w+)", "".join(file.read_text() for file in files))
    )
    assert set(rows) - written == set()


def test_flags_of_the_bot_that_are_named_exist() -> None:
    help_text = subprocess.run(
        [sys.executable, "-m", "bot", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    named = set(re.findall(r"`(--[a-z-]+)", prose(BOT)))
    assert {flag for flag in named if flag not in help_text} == set()
