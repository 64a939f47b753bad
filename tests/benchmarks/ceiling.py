"""Upper bounds of a perfect classifier's scores on the sample, whose labels are users' tags and in part wrong.

`label_audit.csv` lists pictures of Open Clip Art that were inspected: does the picture show what its policy flags? For
the bounds on users' tags:

- stratum `flagged`: pictures with a flagged label, all of `people` and a random 240 of `house`;
- stratum `likely`: the 192 unlabelled pictures with the highest scores of a model;
- stratum `other`: a random 191 of the remaining pictures.

For those on the labels that `conf/corrections/sample.csv` corrects, whose own pictures are right:

- stratum `rest`: a random 189 of the pictures that have no flagged label of either policy, and no correction;
- stratum `rest flagged`: a random 72 of those that are flagged by `house`, without a correction.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

AUDIT = Path(__file__).parent / "label_audit.csv"
SIZES = {
    "house": {
        "tags": {"flagged": 637, "likely": 192, "other": 2829},
        "corrected": {"shown": 295, "not shown": 406, "rest flagged": 475, "rest": 2618},
    },
    "people": {
        "tags": {"flagged": 292, "likely": 192, "other": 3176},
        "corrected": {"shown": 449, "not shown": 412, "rest": 2933},
    },
}
"""Policy -> labels -> stratum -> its pictures, inspected or not. With users' tags they are those of the five folds by
content, with corrected labels those of the catalogue; `shown` and `not shown` have corrections."""
LABELLED = ("flagged", "shown", "rest flagged")
"""Strata whose pictures have the flagged label."""
DRAWS = 2000
HEAD = (
    "policy | labels | flagged, but not shown | shown, but not flagged | AUROC | at best | average precision | at best"
)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print(table())  # noqa: T201 - the command's answer


def table() -> str:
    """A Markdown table of each policy's wrong labels and upper bounds, with 95 % intervals."""
    lines = [HEAD, " | ".join(["---"] * 8)]
    inspected = read()
    for policy, kinds in SIZES.items():
        for labels, sizes in kinds.items():
            draws = [bounds(inspected[policy], sizes, seed) for seed in range(DRAWS)]
            percentiles = np.percentile(draws, (50, 2.5, 97.5), axis=0).T
            cells = [_cell(*row, ".0f" if place < 2 else ".3f") for place, row in enumerate(percentiles)]
            lines.append(" | ".join([policy, labels, *cells]))
    return "\n".join(f"| {line} |" for line in lines)


def _cell(middle: float, low: float, high: float, form: str) -> str:
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def read() -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Policy -> stratum -> whether each inspected picture shows what is flagged; arguable ones count as labelled."""
    shown: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    with AUDIT.open() as file:
        for row in csv.DictReader(file):
            as_labelled = row["stratum"] == "flagged"
            shown[row["policy"]][row["stratum"]].append(
                as_labelled if row["shown"] == "arguable" else row["shown"] == "yes"
            )
    return {policy: {stratum: np.array(flags) for stratum, flags in strata.items()} for policy, strata in shown.items()}


def bounds(inspected: dict[str, NDArray[np.bool_]], sizes: dict[str, int], seed: int) -> list[float]:
    """Draw the pictures that were not inspected, and score two perfect classifiers.

    Both rank all pictures that show what is flagged before all others. The first ranks at random within both; the
    second, the best case, ranks the shown pictures with the label before those without it.

    Returns:
        Labels that are wrong, labels that are missing, AUROC of both classifiers, average precision of both.
    """
    generator = np.random.default_rng(seed)
    known = {"shown": np.ones(sizes.get("shown", 0), bool), "not shown": np.zeros(sizes.get("not shown", 0), bool)}
    strata = {**inspected, **known}
    shown = np.concatenate([complete(strata[stratum], size, generator) for stratum, size in sizes.items()])
    labels = np.repeat([stratum in LABELLED for stratum in sizes], list(sizes.values()))
    ties = generator.random(len(shown))
    # np.lexsort sorts by its last key first, ascending, hence the negations.
    at_random, at_best = (
        scores(labels[np.lexsort((ties, *keys))]) for keys in ((~shown,), (~(shown & labels), ~shown))
    )
    return [
        float((labels & ~shown).sum()),
        float((~labels & shown).sum()),
        *(score for both in zip(at_random, at_best, strict=True) for score in both),
    ]


def scores(ranked: NDArray[np.bool_]) -> tuple[float, float]:
    """AUROC and average precision of labels in a classifier's order, the highest score first."""
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    misordered = np.cumsum(~ranked)[ranked].mean() / (~ranked).sum()
    return float(1 - misordered), float(precision[ranked].mean())


def complete(inspected: NDArray[np.bool_], size: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Fill a stratum up to its size, at a rate drawn from its posterior under Jeffreys' prior."""
    rate = generator.beta(inspected.sum() + 0.5, (~inspected).sum() + 0.5)
    return np.concatenate([inspected, generator.random(size - len(inspected)) < rate])


if __name__ == "__main__":
    main()
