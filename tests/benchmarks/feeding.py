"""How long a training step waits for its batch: `python tests/benchmarks/feeding.py [steps]`, after `dvc repro`."""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import yaml

from stages.config.compose import compose
from stages.config.train import Train
from stages.dataset import targets
from stages.dataset.arrays import decoded
from stages.training import features, networks
from stages.training.batches import Data
from stages.training.fitting import keep_memory
from stages.training.learner import Learner
from stages.workspace import paths
from stages.workspace.parameters import validated


def measured(model: str, steps: int) -> tuple[float, float]:
    """Median seconds to make a batch, and to learn from it, of one group's model on the sample's splits."""
    params = validated(Train, yaml.safe_load(compose([f"model={model}"]))["train"])
    torch.set_num_threads(params.threads)
    task = targets.read(paths.SPLITS["train"], paths.SPLITS["val"], params.tag_min, params.members, params.seed)
    rows = decoded(paths.SHARDS, params.size, params.background, params.threads)
    front = networks.frozen(params)
    views = [features.viewed(rows, front, params.threads, each) for each in range(params.views)] if front else []
    rows = features.extracted(rows, front, params.threads) if front else rows
    learner = Learner(networks.trained(params, task, rows), task, params).train()
    learner.log = lambda *_, **__: None  # type: ignore[method-assign] # there is no trainer to log to
    optimizer = torch.optim.AdamW([each for each in learner.parameters() if each.requires_grad], lr=1e-4)
    loader = Data(task, rows, params, views).train_dataloader()
    batches = itertools.chain.from_iterable(itertools.repeat(loader))  # epoch after epoch, as a training does
    waits, works = [], []
    for number in range(steps):
        start = time.perf_counter()
        batch = next(batches)
        ready = time.perf_counter()
        optimizer.zero_grad()
        learner.training_step(batch, number).backward()
        optimizer.step()
        waits.append(ready - start)
        works.append(time.perf_counter() - ready)
    return statistics.median(waits), statistics.median(works)


def main() -> None:
    keep_memory()
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    for model in ("probe", "finetune", "mini_xception"):
        wait, work = measured(model, steps)
        share = wait / (wait + work)
        print(f"{model:14} waits {1000 * wait:7.1f} ms, learns {1000 * work:7.1f} ms: {share:.1%} of a step")  # noqa: T201


if __name__ == "__main__":
    main()
