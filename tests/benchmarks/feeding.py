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

from stages import train
from stages.config.compose import compose
from stages.config.train import Train
from stages.training.batches import DataModule
from stages.training.fitting import keep_freed_memory
from stages.training.lit_classifier import LitClassifier
from stages.workspace.parameters import validated


def measure(model: str, steps: int) -> tuple[float, float]:
    """Median seconds to make a batch, and to learn from it, of a model on the sample's splits."""
    params = validated(Train, yaml.safe_load(compose([f"model={model}"]))["train"])
    torch.set_num_threads(params.threads)
    task = train.read_task(params)
    inputs = train.prepare(task, params)
    classifier = LitClassifier(train.initial_network(inputs, task), task, params).train()
    classifier.log = lambda *_, **__: None  # type: ignore[method-assign] # there is no trainer to log to
    optimizer = torch.optim.AdamW([each for each in classifier.parameters() if each.requires_grad], lr=1e-4)
    loader = DataModule(task, inputs.rows, params, inputs.copies).train_dataloader()
    batches = itertools.chain.from_iterable(itertools.repeat(loader))  # epoch after epoch, as in a training
    wait_seconds, step_seconds = [], []
    for number in range(steps):
        start = time.perf_counter()
        batch = next(batches)
        ready = time.perf_counter()
        optimizer.zero_grad()
        classifier.training_step(batch, number).backward()
        optimizer.step()
        wait_seconds.append(ready - start)
        step_seconds.append(time.perf_counter() - ready)
    return statistics.median(wait_seconds), statistics.median(step_seconds)


def main() -> None:
    keep_freed_memory()
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    for model in ("probe", "finetune", "mini_xception"):
        wait, work = measure(model, steps)
        share = wait / (wait + work)
        print(f"{model:14} waits {1000 * wait:7.1f} ms, learns {1000 * work:7.1f} ms: {share:.1%} of a step")  # noqa: T201


if __name__ == "__main__":
    main()
