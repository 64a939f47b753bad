"""How heads learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from stages.config.train import Train
from stages.dataset.targets import Examples, Task
from stages.training.lit_classifier import LitClassifier
from stages.training.networks import Head
from stages.workspace.parameters import validated

ROOT = Path(__file__).parents[3]


def params(tag_loss: float) -> Train:
    section = yaml.safe_load((ROOT / "params.yaml").read_text())["train"]
    section["model"]["tag_loss"] = tag_loss
    return validated(Train, section)


@pytest.fixture
def task() -> Task:
    one = Examples(np.array([1]), np.array([[1, 0]], np.float32), np.zeros((1, 3), bool), np.ones((1, 1), np.float32))
    return Task({"name": "house", "kind": "binary", "labels": {}}, ("a", "b", "c"), one, one)


def test_a_head_learns_nothing_from_the_pictures_that_it_scores(task: Task) -> None:
    torch.manual_seed(0)
    values = params(tag_loss=0.1)
    head = Head(4, 8, 0.0, outputs=1, tags=3, heads=3)
    classifier = LitClassifier(head, task, values)
    classifier.log = lambda *_, **__: None  # type: ignore[method-assign] # there is no trainer to log to
    rows, labels, tags = torch.randn(6, 4), torch.eye(2)[torch.arange(6) % 2], torch.rand(6, 3).round()
    learns = 1 - torch.eye(3).repeat(2, 1)

    def gradients() -> Tensor:
        head.zero_grad()
        classifier.training_step((rows, labels, tags, learns), 0).backward()
        assert head.labels.weight.grad is not None
        assert head.tags.weight.grad is not None
        return torch.cat([head.labels.weight.grad.view(3, -1), head.tags.weight.grad.view(3, -1)], 1)

    before = gradients()
    labels[1], tags[1] = 1 - labels[1], 1 - tags[1]  # of a picture that the second head scores
    assert [torch.equal(*each) for each in zip(before, gradients(), strict=True)] == [False, True, False]
