"""Models whose atom types are not called by chemical symbols, with cutoffs by type."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from ase.neighborlist import neighbor_list
from nequip.integrations.ase import NequIPCalculator

from nequip_decorr.errors import UserError
from nequip_decorr.inspection.measure import inspect_file
from nequip_decorr.md import Protocol, load_model, results, run_stability
from nequip_decorr.md.dynamics.engines import loader
from tests.support import commands
from tests.support.commands import md

pytestmark = pytest.mark.slow

ION_MAP = {"Hf": "Hf_ion", "O": "O_ion"}
CUTOFFS = {"Hf_ion": 3.5, "O_ion": {"Hf_ion": 2.6, "O_ion": 2.0}}
OPTION = ["--atom-types", "Hf=Hf_ion", "O=O_ion"]
SHORT = ["--horizon-ps", "0.01", "--replicas", "1"]


@pytest.fixture(scope="module")
def ions(tmp_path_factory) -> Path:
    """The tiny model with types of other names."""
    folder = tmp_path_factory.mktemp("ions")
    config = yaml.safe_load((commands.HERE / "tiny.yaml").read_text())
    config["model_type_names"] = list(ION_MAP.values())
    data = config["data"]
    data["split_dataset"]["file_path"] = str(commands.DATA)
    mapper, neighbours = data["transforms"]
    mapper["chemical_species_to_atom_type_map"] = ION_MAP
    neighbours |= {"per_edge_type_cutoff": CUTOFFS, "type_names": [*ION_MAP.values()]}
    config["training_module"]["model"]["per_edge_type_cutoff"] = CUTOFFS
    (folder / "ions.yaml").write_text(yaml.safe_dump(config))
    commands.train(folder, config=folder / "ions.yaml")
    return folder / "last.ckpt"


@pytest.fixture(scope="module")
def ions_package(ions) -> Path:
    return commands.package_model(ions, ions.with_name("ions.nequip.zip"))


@pytest.fixture(scope="module")
def ions_scripted(ions) -> Path:
    """As TorchScript, which knows no map."""
    return commands.script_model(ions, ions.with_name("ions.nequip.pth"))


@pytest.fixture(scope="module")
def renamed(compiled, tmp_path_factory) -> Path:
    """The model of other tests compiled for ase, with types of these names."""
    path = tmp_path_factory.mktemp("renamed") / "ions.nequip.pt2"
    names = " ".join(ION_MAP.values())
    return commands.with_metadata(compiled, path, type_names=names)


@pytest.fixture(scope="module")
def ions_batched(ions) -> Path:
    return commands.compile_model(ions, "batch", ions.with_name("batch.nequip.pt2"))


def one_line(folder, *arguments):
    line = md(folder, *arguments, "--out", "refused").refusal
    assert not (folder / "refused").exists()
    return line


def forces(ions, atoms, species_map):
    """By NequIP's own calculator."""
    atoms = atoms.copy()
    atoms.calc = NequIPCalculator._from_saved_model(
        ions, chemical_species_to_atom_type_map=species_map
    )
    return atoms.get_forces()


@pytest.mark.parametrize("form", ["ions", "ions_package", "ions_scripted"])
def test_forces_are_those_of_nequips_calculator(form, ions, hfo2, request):
    path = request.getfixturevalue(form)
    given = ION_MAP if form == "ions_scripted" else None
    handle = load_model(path, chemical_species_to_atom_type_map=given)
    assert handle.species == ("Hf", "O")
    atoms = ase.io.read(hfo2)
    expected = forces(ions, atoms, ION_MAP)
    atoms.calc = handle.open()
    np.testing.assert_allclose(atoms.get_forces(), expected, atol=1e-4)
    atoms.calc = handle.loaded
    np.testing.assert_allclose(atoms.get_forces(), expected, atol=1e-4)
    swapped = forces(ions, atoms, {"Hf": "O_ion", "O": "Hf_ion"})
    assert np.abs(swapped - expected).max() > 0.01


@pytest.mark.parametrize("engine", ["ase", "torchsim"])
def test_the_map_is_found_and_is_a_part_of_the_run(tmp_path, ions, hfo2, engine):
    arguments = [ions, f"{hfo2}@0", *SHORT, "--engine", engine, "--out", "run"]
    done = md(tmp_path, *arguments)
    assert done.status == 0, done.output
    model = results.load(tmp_path / "run" / "result.json").model
    assert model["species"] == ["Hf", "O"]
    assert model["chemical_species_to_atom_type_map"] == ION_MAP
    same = md(tmp_path, *arguments, *OPTION)
    assert same.status == 0, same.output
    other = md(tmp_path, *arguments, "--atom-types", "Hf=O_ion", "O=Hf_ion")
    assert other.status == 2
    assert (
        "model.chemical_species_to_atom_type_map.Hf was Hf_ion, is O_ion"
        in other.output
    )


def test_a_model_without_a_map_says_what_to_type(tmp_path, ions_scripted, hfo2):
    start = f"{hfo2}@0"
    line = one_line(tmp_path, ions_scripted, start, *SHORT)
    assert "`--atom-types Hf=Hf_ion O=O_ion`" in line
    done = md(tmp_path, ions_scripted, start, *SHORT, *OPTION, "--out", "run")
    assert done.status == 0, done.output


def test_several_processes_have_the_map(tmp_path, ions, hfo2):
    swapped = {"Hf": "O_ion", "O": "Hf_ion"}
    found = [
        run_stability(
            ions,
            hfo2,
            Protocol(horizon_ps=0.01, replicas=1),
            output=tmp_path / str(processes),
            processes=processes,
            chemical_species_to_atom_type_map=swapped,
        )
        for processes in (1, 2)
    ]
    assert found[0].replicas == found[1].replicas


def test_maps_that_cannot_be_run(tmp_path, ions, hfo2):
    for given, message in (
        (["Hf=Hf_ion"], "expected elements that the model knows (Hf), got O in"),
        (["Hf=Hf_ion", "O=O_ino"], "did you mean 'O_ion'?"),
        (["Hf=Hf_ion", "Hf=O_ion"], "expected each element once"),
        (["Hf=Hf_ion", "O=O_ion", hfo2], "after the files"),
    ):
        line = one_line(tmp_path, ions, hfo2, *SHORT, "--atom-types", *given)
        assert message in line


def test_two_elements_of_one_type(ions, hfo2):
    handle = load_model(
        ions,
        chemical_species_to_atom_type_map={**ION_MAP, "Zr": "Hf_ion"},
    )
    hafnia = ase.io.read(hfo2)
    zirconia = hafnia.copy()
    zirconia.symbols[zirconia.symbols == "Hf"] = "Zr"
    hafnia.calc = zirconia.calc = handle.loaded
    energies = [atoms.get_potential_energy() for atoms in (hafnia, zirconia)]
    assert energies[0] == energies[1]
    assert set(handle.species) == {"Hf", "Zr", "O"}


def test_a_map_is_for_model_files(tmp_path, ions, hfo2):
    with pytest.raises(UserError, match="with the path of a model file"):
        run_stability(
            load_model(ions),
            hfo2,
            Protocol(),
            output=tmp_path,
            chemical_species_to_atom_type_map=ION_MAP,
        )


@pytest.mark.parametrize("form", ["ions", "ions_package"])
def test_inspect_counts_the_edges_of_the_models_cutoffs(form, request):
    found = inspect_file(request.getfixturevalue(form), f"{commands.DATA}@:3")
    reach = {("Hf", "Hf"): 3.5, ("Hf", "O"): 3.5, ("O", "Hf"): 2.6, ("O", "O"): 2.0}
    edges = 0
    for atoms in ase.io.read(commands.DATA, ":3"):
        symbols = np.array(atoms.get_chemical_symbols())
        i, j, length = neighbor_list("ijd", atoms, 3.5)
        limits = np.array(
            [reach[pair] for pair in zip(symbols[i], symbols[j], strict=True)]
        )
        edges += int((length <= limits).sum())
    assert found.rows == edges


def test_inspect_takes_a_map(tmp_path, ions):
    arguments = ["inspect", str(ions), f"{commands.DATA}@:2"]
    done = commands.run("nequip-decorr", [*arguments, *OPTION], tmp_path)
    assert done.status == 0, done.output
    wrong = [*arguments, "--atom-types", "Hf=Hf_ion", "O=O_ino"]
    refused = commands.run("nequip-decorr", wrong, tmp_path)
    assert refused.status == 2
    assert "did you mean 'O_ion'?" in refused.output
    assert refused.output.count("\n") == 1


@pytest.mark.parametrize(
    ("form", "trained", "engine"),
    [("renamed", "checkpoint", "ase"), ("ions_batched", "ions", "torchsim")],
    ids=["ase", "torchsim"],
)
def test_compiled_models(tmp_path, form, trained, engine, hfo2, request):
    path = request.getfixturevalue(form)
    arguments = [path, hfo2, *SHORT, "--engine", engine]
    assert "`--atom-types Hf=Hf_ion O=O_ion`" in one_line(tmp_path, *arguments)
    done = md(tmp_path, *arguments, *OPTION, "--out", "run")
    assert done.status == 0, done.output
    handle = load_model(
        path, loader=loader(engine), chemical_species_to_atom_type_map=ION_MAP
    )
    assert handle.species_map == ION_MAP
    start = results.load(tmp_path / "run" / "result.json").replicas[0]
    atoms = ase.io.read(hfo2, 0)
    atoms.calc = load_model(request.getfixturevalue(trained)).loaded
    assert start.trace.potential_energy_eV[0] == pytest.approx(
        atoms.get_potential_energy(), rel=1e-5
    )
