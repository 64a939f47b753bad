"""The README says what is so: its graph, its tree, its commands, its experiment files."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from bot import settings
from bot.client import PERMISSIONS
from bot.pictures.judging import JudgeCaps
from bot.rules.policy import UNJUDGED
from stages import experiments
from stages.config.compose import check, compose

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent


def fenced(language: str, text: str = README) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for of, block in blocks if of == language]


def commands() -> list[list[str]]:
    lines = re.sub(r"#(?=\w)", r"\\#", "".join(fenced("sh"))).replace("\\\n", " ").splitlines()
    split = (shlex.split(line, comments=True) for line in lines)
    bare = ([*itertools.dropwhile(lambda word: re.match(r"[A-Z_]+=", word), words)] for words in split)
    return [words for words in bare if words]


def test_the_graph_is_dvcs() -> None:
    drawn = subprocess.run([BIN / "dvc", "dag", "--md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert fenced("mermaid")[0].split() == drawn.strip().strip("`").split()[1:]


def test_the_tree_names_what_is_there() -> None:
    tree = next(block for block in fenced("") if block.startswith("conf/"))
    folder = ""
    for line in tree.splitlines():
        name = line.split()[0]
        folder = "" if not line.startswith(" ") else folder
        assert (ROOT / folder / name).exists(), line
        folder = folder or name


def test_the_commands_are_those_there_are() -> None:
    programs = {words[0] for words in commands()}
    assert programs <= {"make", "dvc", "python", "git", "gto", "wget", "pytest"}
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {words[1] for words in commands() if words[0] == "make"} <= targets


@pytest.mark.parametrize("words", [words for words in commands() if words[:2] == ["python", "-m"]], ids=" ".join)
def test_modules_that_are_run_exist(words: list[str]) -> None:
    path = ROOT.joinpath(*words[2].split("."))
    assert path.with_suffix(".py").exists() or (path / "__main__.py").exists()


def test_overrides_of_experiments_compose() -> None:
    runs = [words for words in commands() if words[:3] == ["dvc", "exp", "run"]]
    assert runs
    for words in runs:
        given = [word for flag, word in itertools.pairwise(words) if flag == "-S"]
        ours = [word for word in given if not word.startswith("policy=vehicles")]
        firsts = [f"{word.split('=')[0]}={word.split('=', 1)[1].split(',')[0]}" for word in ours]
        check(yaml.safe_load(compose(firsts, conf=ROOT / "conf")))


def test_the_example_of_a_policy_is_valid(tmp_path: Path) -> None:
    (example,) = fenced("yaml")
    values = yaml.safe_load(compose(conf=ROOT / "conf"))
    values["extract"] |= yaml.safe_load(example)["extract"]
    check(values)


def test_the_expected_numbers_are_those_of_the_committed_run() -> None:
    said = dict(re.findall(r"^\| (\w+) \| (.+) \| \d+ \|$", README, re.MULTILINE))
    restored = told("restore/tables.json")["rows"]
    extracted, split = told("extract/summary.json"), told("split/summary.json")
    train, test = told("train/metrics.json")["val"], told("test/metrics.json")
    removed = extracted["dropped"]["merged"] + extracted["dropped"]["removed"]
    intervals = (
        f"{called} {test[name]:.3f} ({test[f'{name}_low']:.3f} to {test[f'{name}_high']:.3f})"
        for called, name in (("AUROC", "auroc"), ("average precision", "average_precision"))
    )
    assert said == {
        "sample": f"a dump of {restored['images']:,} images, {restored['images'] - removed:,} of them shown",
        "restore": f"{restored['images']:,} images, {restored['tags']:,} tags, {restored['image_taggings']:,} taggings",
        "extract": f"{extracted['kept']:,} images: "
        + ", ".join(f"{count:,} {label}" for label, count in extracted["labels"].items()),
        "download": ", ".join(
            f"{count:,} {status}" for status, count in told("download/crawl.json")["pictures"].items()
        ),
        "split": ", ".join(f"{name} {each['pictures']:,}" for name, each in split["splits"].items())
        + f"; {split['left_out']['bridges']} bridges between splits left out",
        "train": f"validation AUROC {train['auroc']:.3f}, average precision {train['average_precision']:.3f}",
        "test": ", ".join(intervals),
    }


def test_what_a_perfect_judge_scores_is_computed_from_what_was_seen() -> None:
    said = (ROOT / "tests/benchmarks/README.md").read_text()
    computed = subprocess.run(
        [sys.executable, ROOT / "tests/benchmarks/ceiling.py"], capture_output=True, text=True, check=True
    ).stdout
    assert said.partition("<!-- ceiling -->\n")[2].partition("<!-- /ceiling -->")[0] == computed


def test_the_comparison_is_made_from_the_runs() -> None:
    runs = pd.read_csv(ROOT / "tests/benchmarks/experiments.csv")
    assert README.partition("<!-- compared -->\n")[2].partition("<!-- /compared -->")[0] == experiments.table(runs)


def told(path: str) -> Any:
    """A committed file of data/: what is there may be of a run of one's own."""
    command = ["git", "show", f"HEAD:data/{path}"]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("file", sorted((ROOT / "conf/experiment").glob("*.yaml")), ids=lambda file: file.stem)
def test_an_experiment_opens_with_its_command(file: Path) -> None:
    assert f"`dvc exp run -S experiment={file.stem}`" in file.read_text()


def test_the_bots_commands_are_taken() -> None:
    runs = [words[3:] for words in commands() if words[:3] == ["python", "-m", "bot"]]
    assert [words[:2] for words in runs] == [["--model", "moderator#prod"]] * 2
    for words in runs:
        settings.read(words, {"MLPY_DISCORD_TOKEN": "token"})


def test_the_invite_asks_for_what_the_bot_needs() -> None:
    assert f"permissions={PERMISSIONS.value}\n" in README
    named = {name for name, wanted in PERMISSIONS if wanted}
    table = README.partition("| permission | what for |")[2].partition("\n\n")[0].casefold()
    words = {
        "view_channel": "view channels",
        "read_messages": "view channels",
        "send_messages_in_threads": "also in threads",
    }
    assert [name for name in named if words.get(name, name.replace("_", " ")) not in table] == []


def test_the_frames_told_of_are_those_looked_at() -> None:
    assert f"up to {JudgeCaps().frames} frames" in README


def test_the_verdicts_are_all_told() -> None:
    assert [each for each in UNJUDGED if f"`{each}`" not in README] == []
