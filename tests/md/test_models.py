"""What counts as a model, and what is said of what does not."""

import pytest
from ase.calculators.emt import EMT

from nequip_decorr.errors import UserError
from nequip_decorr.md import calculator_model, load_model
from nequip_decorr.md.models import model_kind
from tests.support.potentials import Einstein, einstein


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a/last.ckpt", "checkpoint"),
        ("m.nequip.zip", "package"),
        ("m.nequip.pt2", "aotinductor"),
        ("m.nequip.pth", "torchscript"),
    ],
)
def test_kinds(name, kind):
    assert model_kind(name) == kind


@pytest.mark.parametrize("name", ["model.pt", "model.zip", "model", "m.pt2"])
def test_files_of_no_kind(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match="a model file that ends in"):
        load_model(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["m.ckpt", "m.nequip.zip", "m.nequip.pt2", "m.nequip.pth"]
)
@pytest.mark.parametrize("content", [b"", b"not a model\n" * 40])
def test_foreign_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"^expected a NequIP") as caught:
        load_model(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_a_checkpoint_of_something_else(tmp_path):
    import torch

    torch.save({"state_dict": {}, "epoch": 3}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=r"^expected a NequIP checkpoint"):
        load_model(tmp_path / "other.ckpt")


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="which does not exist"):
        load_model(tmp_path / "none.ckpt")
    with pytest.raises(UserError, match="which is a folder; give the file's path"):
        load_model(tmp_path)


def test_calculators():
    handle = calculator_model(EMT())
    assert handle.describe() == {
        "path": "ase.calculators.emt.EMT",
        "sha256": None,
        "kind": "calculator",
        "species": None,
    }
    assert handle.open is None
    made = calculator_model(einstein)
    assert isinstance(made.loaded, Einstein)
    assert made.open is einstein


def test_what_is_no_calculator():
    with pytest.raises(UserError, match="an ase calculator with energy and forces"):
        calculator_model(dict)
