"""Which element has which of a model's atom types."""

import pytest
import torch

from nequip_decorr.errors import UserError
from nequip_decorr.species import (
    parse_species_map,
    resolve_species_map,
    trained_species_map,
)

IONS = ["Hf_ion", "O_ion"]
ION_MAP = {"Hf": "Hf_ion", "O": "O_ion"}


def refused(call, *arguments):
    with pytest.raises(UserError, match=r"^expected") as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_types_that_are_elements_need_no_map():
    assert resolve_species_map(["O", "Hf"], None, None) == {"O": "O", "Hf": "Hf"}


def test_a_training_on_some_elements_leaves_the_others_known():
    """A large model, fine-tuned: it still knows what it knew."""
    trained = {"O": "O"}
    known = resolve_species_map(["H", "O", "Hf"], None, trained)
    assert known == {"H": "H", "O": "O", "Hf": "Hf"}


def test_the_map_of_the_training_is_used_where_it_says_more():
    assert resolve_species_map(IONS, None, ION_MAP) == ION_MAP
    # hafnium under zirconium's name: the identity would be another model
    alias = {"Hf": "Zr", "O": "O"}
    assert resolve_species_map(["Zr", "O"], None, alias) == alias


def test_the_users_map_comes_first():
    swapped = {"Hf": "O_ion", "O": "Hf_ion"}
    assert resolve_species_map(IONS, swapped, ION_MAP) == swapped
    assert resolve_species_map(IONS, {"O": "O_ion"}, ION_MAP) == {"O": "O_ion"}
    alike = {"Hf": "Hf_ion", "Zr": "Hf_ion"}
    assert resolve_species_map(IONS, alike, None) == alike


def test_no_map_says_what_to_type():
    message = refused(resolve_species_map, [*IONS, "core"], None, None)
    assert "`--atom-types Hf=Hf_ion O=O_ion ELEMENT=core`" in message
    # of another model
    assert "--atom-types" in refused(resolve_species_map, IONS, None, {"Hf": "Hf"})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"Hf": "Hf_ino"}, "got Hf=Hf_ino; did you mean 'Hf_ion'?"),
        ({"HF": "Hf_ion"}, "got 'HF'; did you mean 'Hf'?"),
        ({"Hf_ion": "Hf"}, "expected chemical symbols"),
        ({}, "at least one element"),
    ],
)
def test_maps_that_do_not_fit(given, message):
    assert message in refused(resolve_species_map, IONS, given, ION_MAP)


def test_the_command_lines_form():
    assert parse_species_map(["Hf=Hf_ion", "O=O=2"]) == {"Hf": "Hf_ion", "O": "O=2"}
    for item in ("Hf", "=Hf_ion", "Hf=", "start.extxyz", "Hf:Hf_ion"):
        assert f"got '{item}'" in refused(parse_species_map, [item])
    assert "Hf as a and as b" in refused(parse_species_map, ["Hf=a", "Hf=b"])


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ({"transforms": [{"_target_": "x"}]}, None),
        (None, None),
        # a data module with transforms for each of its sets
        (
            {
                "train": {
                    "transforms": [{"chemical_species_to_atom_type_map": {"O": "o"}}]
                },
                "val": [{"chemical_species_to_atom_type_map": {"Hf": "h", "O": "o"}}],
            },
            {"O": "o", "Hf": "h"},
        ),
        (
            [
                {"chemical_species_to_atom_type_map": {"O": "o"}},
                {"chemical_species_to_atom_type_map": {"O": "other"}},
            ],
            None,
        ),
        ({"chemical_species_to_atom_type_map": None}, None),
    ],
)
def test_maps_in_a_checkpoint(tmp_path, data, found):
    path = tmp_path / "last.ckpt"
    torch.save({"hyper_parameters": {"info_dict": {"data": data}}}, path)
    assert trained_species_map(path) == found
