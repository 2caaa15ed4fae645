"""Planning: everything is composed and checked before anything runs."""

from __future__ import annotations

import shutil
from itertools import pairwise

import ase.io
import hydra
import pytest
import yaml

from nequip_decorr.errors import UserError
from nequip_decorr.study.config import study_of
from nequip_decorr.study.folder import StudyFolder
from nequip_decorr.study.plan import make_plan
from nequip_decorr.study.questions import questions
from nequip_decorr.study.stages import CHECKPOINT
from tests.support.commands import DATA, config_with

LR = "training_module.optimizer.lr"
VARIANTS = {"fast": [], "slow": [f"{LR}=0.002"]}
NVE = {"structures": "start.extxyz", "temperatures_K": [300], "ensemble": "nve"}


@pytest.fixture
def base(tmp_path):
    shutil.copy(DATA, tmp_path / "all.extxyz")
    data = str(tmp_path / "all.extxyz")
    config_with(tmp_path, {"data.split_dataset.file_path": data})
    ase.io.write(tmp_path / "start.extxyz", ase.io.read(DATA, "0:2"))
    return tmp_path


def study(base, **changes):
    md = {"structures": "start.extxyz", "temperatures_K": [1200], "horizon_ps": 1}
    data = {"config": "mine.yaml", "seeds": 3, "variants": VARIANTS, "md": {"hot": md}}
    return study_of(data | changes, base)


def data_module(dataset, path, parts):
    """NequIP's general data module, of one dataset, for hydra."""
    dataset = f"{{_target_: nequip.data.dataset.{dataset}, file_path: {path}}}"
    kind = "nequip.data.datamodule.NequIPDataModule"
    split = f"{{dataset: {dataset}, {parts}}}"
    return f"{{_target_: {kind}, seed: 1, split_dataset: {split}}}"


def plan(base, **changes):
    return make_plan(study(base, **changes), base / "out")


def test_tasks(base):
    found = plan(base)
    assert len(found.tasks) == 3 * 2 * 5
    by_key = {task.key: task for task in found.tasks}
    assert by_key["slow_2.train"].needs == ()
    for override in (f"{LR}=0.002", "data.seed=2", "training_module.model.seed=2"):
        assert override in by_key["slow_2.train"].command
    assert by_key["slow_2.md-hot"].needs == ("slow_2.train", "slow_2.compile")
    assert by_key["fast_1.test"].test_sets == ("split",)
    folders = [task.folder for task in found.tasks]
    assert len(set(folders)) == len(folders)
    # a part of a study that was stopped is balanced
    assert [t.seed for t in found.tasks] == sorted(t.seed for t in found.tasks)


def test_a_primary_question_about_an_error(base):
    primary = {"variant": "slow", "test": "split", "metric": "forces_rmse"}
    assert plan(base, primary=primary).identity["primary"]["test"] == "split"


def test_data_that_ase_does_not_read(base):
    """Other data modules read LMDB, npz, ...; a format is that of the config."""
    (base / "all.lmdb").write_bytes(b"no text")
    module = data_module(
        "NequIPLMDBDataset", base / "all.lmdb", "train: 0.8, val: 0.1, test: 0.1"
    )
    found = plan(base, variants={"a": ["~data", f"+data={module}"]})
    stages = [task.stage for task in found.tasks if task.seed == 1]
    assert stages == ["train", "test", "compile", "md-hot"]
    assert any("inspect: FILE" in note for note in found.notes)

    shutil.copy(DATA, base / "all.data")
    overrides = [
        f"data.split_dataset.file_path={base}/all.data",
        "+data.ase_args.format=extxyz",
    ]
    assert plan(base, variants={"a": overrides}).tasks


def test_atom_types_with_other_names(base):
    """A compiled model must be told what a checkpoint knows from its training."""
    assert not any("--atom-types" in task.command for task in plan(base).tasks)
    config = yaml.safe_load((base / "mine.yaml").read_text())
    config["model_type_names"] = ["Hf_ion", "O_ion"]
    mapper = config["data"]["transforms"][0]
    mapper["chemical_species_to_atom_type_map"] = {"Hf": "Hf_ion", "O": "O_ion"}
    (base / "ions.yaml").write_text(yaml.safe_dump(config))
    ions = {"config": "ions.yaml", "seeds": 1, "variants": {"ions": []}}
    last = {task.stage: task.command for task in plan(base, **ions).tasks}
    assert last["md-hot"][-3:] == ("--atom-types", "Hf=Hf_ion", "O=O_ion")
    found = plan(base, **ions, compile=False).tasks
    assert not any("--atom-types" in task.command for task in found)
    # structures are checked by their elements
    atoms = ase.io.read(DATA, 0)
    atoms.symbols[0] = "Au"
    ase.io.write(base / "start.extxyz", atoms)
    with pytest.raises(UserError, match="Au"):
        plan(base, **ions)


@pytest.mark.parametrize(
    ("seeds", "keys"),
    [
        ({"model": "${model_seed}"}, ["data.seed", "training_module.model.seed"]),
        ({"model": "${data.seed}"}, ["data.seed"]),
        ({"model": "${...data.seed}"}, ["data.seed"]),
        ({"data": "${seed}", "model": "${seed}"}, ["seed"]),
        ({"model": "${oc.env:SEED,3}"}, ["data.seed", "training_module.model.seed"]),
    ],
)
def test_every_seed_is_set_or_follows_one_that_is(base, seeds, keys):
    """Else all models would start with the same weights."""
    config = yaml.safe_load((base / "mine.yaml").read_text())
    config |= {"model_seed": 3} | ({"seed": 1} if keys == ["seed"] else {})
    config["data"]["seed"] = seeds.get("data", 7)
    config["training_module"]["model"]["seed"] = seeds["model"]
    (base / "seeds.yaml").write_text(yaml.safe_dump(config))
    found = plan(base, config="seeds.yaml")
    assert found.identity["variants"]["fast"]["seed_keys"] == keys
    train = next(t for t in found.tasks if t.key == "fast_2.train")
    with hydra.initialize_config_dir(str(base), version_base=None):
        overrides = [part for part in train.command if "seed=" in part]
        composed = hydra.compose("seeds", overrides)
    assert composed.data.seed == composed.training_module.model.seed == 2


def test_a_linked_config_is_that_of_its_folder(base):
    """As nequip-train has it: what it names under `defaults` is beside the link."""
    (base / "real").mkdir()
    (base / "mine.yaml").rename(base / "real" / "other.yaml")
    (base / "mine.yaml").symlink_to(base / "real" / "other.yaml")
    assert plan(base).tasks


def test_a_data_module_without_test_sets_has_no_test(base):
    module = data_module("ASEDataset", base / "all.extxyz", "train: 0.8, val: 0.2")
    found = plan(base, variants={"a": ["~data", f"+data={module}"]})
    assert "test" not in {task.stage for task in found.tasks}
    # another may have its own
    kind = "nequip.data.datamodule.NequIP3BPADataModule"
    found = plan(
        base, variants={"a": ["~data", f"+data={{_target_: {kind}, seed: 1}}"]}
    )
    assert "test" in {task.stage for task in found.tasks}


def test_gpus_of_a_cluster_need_not_be_here(base):
    slurm = {"slurm": {"gpus_per_node": 1, "time_min": 60}}
    assert plan(base, device="cuda", executor=slurm).identity["device"] == "cuda"


def test_seeds_do_not_identify_a_study(base):
    assert plan(base).checksum == plan(base, seeds=[7]).checksum
    more = {"variants": {**VARIANTS, "slower": [f"{LR}=0.001"]}}
    assert plan(base).checksum != plan(base, **more).checksum


def test_any_variant(base):
    """Flags, new models, groups: what nequip-train takes."""
    zbl = (
        "+training_module.model.pair_potential={_target_: "
        "nequip.nn.pair_potential.ZBL, units: metal, chemical_species: [Hf, O]}"
    )
    flag = ["+nequip_decorr=constant", "nequip_decorr.schedule.coeff=0.7"]
    found = plan(base, variants={"none": [], "zbl": [zbl], "flag": flag})
    by_key = {task.key: task for task in found.tasks}
    # the term draws with a seed of its own
    assert "nequip_decorr.sample.seed=3" in by_key["flag_3.train"].command
    assert zbl in by_key["zbl_1.test"].command


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"variants": {"a": [], "b": [f"{LR}=0.01"]}}, "are the same training"),
        (
            {"variants": {"a": [f"{LR}=0.02", "trainer.max_epochs=2"]}},
            "something .* got tra",
        ),
        (
            {"variants": {"a": [f"{LR}=0.02", "cutoff_radius=3.5"]}},
            "something .* got cut",
        ),
        ({"variants": {"a": ["+x={y: 1, z: 2}", "x.y=1", f"{LR}=1"]}}, "got x.y=1"),
        ({"variants": {"a": ["training_module.optimiser.lr=1"]}}, "cannot compose"),
        ({"variants": {"a": ["a=b=["]}}, "cannot compose"),
        ({"variants": {"a": ["data.seed=3"]}}, "the study sets seeds and folders"),
        ({"variants": {"a": ["data.split_dataset.file_path=no.xyz"]}}, "no such file"),
        ({"variants": {"a": ["+ckpt_path=last.ckpt"]}}, "that start from scratch"),
        ({"variants": {"a": ["trainer.callbacks=[]"]}}, "ModelCheckpoint"),
        ({"variants": {"a": ["training_module=null"]}}, "with a section `training_mod"),
        ({"variants": {"a": ["+trainer.val_check_interval=0.5"]}}, "averaged"),
        ({"device": "cuda:99"}, "on this machine"),
        ({"seed_keys": []}, "a key called seed in"),
        ({"seed_keys": ["data.sede"]}, "cannot compose"),
        ({"seed_keys": ["data.seed.0"]}, "cannot compose"),
        ({"seed_keys": ["trainer.callbacks.0.seed"]}, "cannot compose"),
        ({"test": {"broken": "mine.yaml"}}, "data that ase reads"),
        ({"test": {"split": "start.extxyz"}}, "different names, got split, split"),
        ({"md": {"nve": {**NVE, "horizon_ps": 0.2}}}, "20 recorded energies .*got 16"),
        ({"primary": {"test": "spilt", "metric": "forces_rmse"}}, "mean 'split'"),
        ({"primary": {"test": "split", "metric": "forces"}}, "forces_rmse"),
    ],
)
def test_refused(base, changes, said):
    with pytest.raises(UserError, match=said) as error:
        plan(base, **changes)
    assert "\n" not in str(error.value)


def test_test_files_need_a_data_module_that_takes_them(base):
    module = data_module("ASEDataset", base / "all.extxyz", "train: 0.8, val: 0.2")
    variants = {"a": ["~data", f"+data={module}"]}
    with pytest.raises(UserError, match="`test:` with an ASEDataModule alone"):
        plan(base, variants=variants, test={"ood": "start.extxyz"})


def test_what_a_plan_may_name(base):
    """Engines, references, test files and data for the correlation."""
    hot = {"structures": "start.extxyz", "temperatures_K": [1200], "horizon_ps": 1}
    found = plan(
        base,
        md={
            "hot": {**hot, "engine": "torchsim", "reference": "all.extxyz"},
            "cold": {**hot, "temperatures_K": [300]},
        },
        test={"ood": "start.extxyz", "all": "all.extxyz"},
        inspect="start.extxyz",
    )
    by_key = {task.key: task for task in found.tasks}
    assert [key.split(".")[1] for key in by_key if key.startswith("fast_1.")] == [
        *("train", "test", "inspect"),
        *("compile-torchsim", "compile", "md-hot", "md-cold"),
    ]
    hot, cold = by_key["fast_1.md-hot"], by_key["fast_1.md-cold"]
    assert hot.needs == ("fast_1.train", "fast_1.compile-torchsim")
    assert cold.needs == ("fast_1.train", "fast_1.compile")
    reference = ("--reference", str(base / "all.extxyz"))
    assert reference in list(pairwise(hot.command))
    assert ("--engine", "torchsim") in list(pairwise(hot.command))
    assert "--reference" not in cold.command
    compiled = by_key["fast_1.compile-torchsim"].command
    assert ("--target", "batch") in list(pairwise(compiled))
    test = by_key["fast_1.test"]
    assert test.test_sets == ("ood", "all", "split")
    (files,) = (part for part in test.command if "test_file_path" in part)
    assert files.index(str(base / "start.extxyz")) < files.index(
        str(base / "all.extxyz")
    )
    assert str(base / "start.extxyz") in by_key["fast_1.inspect"].command


def test_simulations_of_the_checkpoint(base):
    found = plan(base, compile=False)
    by_key = {task.key: task for task in found.tasks}
    assert not any("compile" in key for key in by_key)
    assert by_key["fast_1.md-hot"].needs == ("fast_1.train",)
    assert CHECKPOINT in by_key["fast_1.md-hot"].command


def test_few_seeds_and_mixed_compositions_are_told(base):
    full, short = ase.io.read(DATA, 0), ase.io.read(DATA, 1)
    full.calc = short.calc = None
    del short[[atom.symbol == "O" for atom in short].index(True)]
    ase.io.write(base / "start.extxyz", [full, short])
    notes = plan(base, seeds=2).notes
    assert any(note.startswith("2 seeds: no interval or verdict") for note in notes)
    (mixed,) = (note for note in notes if "compositions" in note)
    assert mixed.startswith("md.hot: its structures have 2 compositions but count as")
    ase.io.write(base / "start.extxyz", [full])
    assert not any("seeds" in n or "compositions" in n for n in plan(base).notes)


@pytest.mark.parametrize("text", [b"a: [1", b"a: 1\na: 2", b"a: \xff"])
def test_a_broken_config_is_refused(base, text):
    (base / "mine.yaml").write_bytes(text)
    with pytest.raises(UserError, match="cannot compose") as error:
        plan(base)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("folder", ["/tmp/all", "checkpoints", "null"])
def test_shared_checkpoints_are_refused(base, folder):
    config = base / "mine.yaml"
    config.write_text(config.read_text().replace("${hydra:runtime.output_dir}", folder))
    with pytest.raises(UserError, match="overwrite each other"):
        plan(base)


def test_unsound_structures_are_refused(base):
    atoms = ase.io.read(DATA, 0)
    atoms.positions[1] = atoms.positions[0] + 0.1
    ase.io.write(base / "start.extxyz", atoms)
    with pytest.raises(UserError, match=r"md\.hot: expected no overlapping atoms"):
        plan(base)


def test_unknown_elements_are_refused(base):
    atoms = ase.io.read(DATA, 0)
    atoms.symbols[0] = "Au"
    ase.io.write(base / "start.extxyz", atoms)
    with pytest.raises(UserError, match="Au"):
        plan(base)


def test_trainings_that_cannot_resume_are_told(base):
    config = base / "mine.yaml"
    config.write_text(config.read_text().replace("save_last: true", "save_last: false"))
    assert any("save_last" in note for note in plan(base).notes)


@pytest.mark.parametrize(("until", "told"), [("first", True), ("explosion", False)])
def test_a_primary_question_that_has_no_answer_is_told(base, until, told):
    md = {"structures": "start.extxyz", "temperatures_K": [1200], "horizon_ps": 1}
    primary = {"variant": "slow", "event": "explosion"}
    found = plan(base, md={"hot": {**md, "until": until}}, primary=primary)
    assert any("until: explosion" in note for note in found.notes) is told


def test_configs_are_composed_once_a_variant(base, monkeypatch):
    """So that planning 500 tasks takes seconds; seeds and overrides cost nothing."""
    more = ["trainer.max_epochs=7", "cutoff_radius=4.0", "+data.ase_args.index=':'"]
    variants = {"base": []} | {f"lr{i}": [*more, f"{LR}={i}e-4"] for i in range(1, 4)}
    composed = []
    real = hydra.compose

    def counting(*args, **kwargs):
        composed.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(hydra, "compose", counting)
    assert len(plan(base, seeds=25, variants=variants).tasks) == 500
    assert len(composed) == len(variants)


def register(base, **changes):
    folder = StudyFolder(base / "out")
    asked = study(base, **changes)
    found = make_plan(asked, folder.path, folder.digest)
    with folder.held():
        return folder.register(found, questions(asked, found), asked.md)


def test_seeds_may_be_added(base):
    register(base)
    later = register(base, seeds=[1, 2, 3, 9])
    assert [wave["seeds"] for wave in later.waves] == [[1, 2, 3], [9]]
    assert len(later.tasks) == 4 * 2 * 5
    assert register(base, seeds=[1, 2, 3, 9]).waves == later.waves


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"variants": {"fast": [], "slow": [f"{LR}=0.003"]}}, "lr was 0.002, is 0.003"),
        ({"seeds": [1, 2]}, r"seeds \[3\] are missing"),
        ({"compile": False}, "compile was True"),
        ({"primary": {"event": "explosion"}}, "primary.event"),
    ],
)
def test_another_study_in_the_folder(base, changes, said):
    register(base)
    before = (base / "out" / "plan.json").read_bytes()
    with pytest.raises(UserError, match=said):
        register(base, **changes)
    assert (base / "out" / "plan.json").read_bytes() == before


def test_changed_config(base):
    register(base)
    config = base / "mine.yaml"
    config.write_text(config.read_text().replace("lr: 0.01", "lr: 0.02"))
    with pytest.raises(UserError, match=r"lr was 0\.01, is 0\.02"):
        register(base)


def test_changed_data(base):
    registered = register(base)
    folder = StudyFolder(base / "out")
    assert folder.changed_file(registered) is None
    data = base / "all.extxyz"
    data.touch()  # another time, the same content
    assert folder.changed_file(registered) is None
    data.write_text(data.read_text().replace("Hf", "Zr", 1))
    assert folder.changed_file(registered) == str(data)
    with pytest.raises(UserError, match="files"):
        register(base)


def test_all_of_it_may_be_moved(base, tmp_path_factory, monkeypatch):
    """Config, data and results, as by `git clone` or `rsync`: the same study."""
    text = (base / "mine.yaml").read_text()
    (base / "mine.yaml").write_text(text.replace(str(base), "${hydra:runtime.cwd}"))
    monkeypatch.chdir(base)
    before = register(base)
    (base / "out" / "tasks.json").unlink()  # of the other machine
    moved = tmp_path_factory.mktemp("elsewhere") / "all"
    shutil.move(base, moved)
    monkeypatch.chdir(moved)
    after = register(moved)
    assert (after.identity, after.waves) == (before.identity, before.waves)
    assert str(base) not in (moved / "out" / "plan.json").read_text()
    assert after.cwd == str(moved)
    assert all(str(base) not in repr(task) for task in after.tasks)


def test_two_at_a_time_are_refused(base):
    folder = StudyFolder(base / "out")
    with (
        folder.held(),
        pytest.raises(UserError, match="another process"),
        StudyFolder(base / "out").held(),
    ):
        pass


@pytest.mark.parametrize("name", ["tasks.json.part", "plan.json.part"])
def test_a_study_killed_while_it_was_planned(base, name):
    out = StudyFolder(base / "out")
    with out.held():
        (out.path / name).write_text("{")
    with out.held():
        pass


def test_a_folder_in_use_is_refused(base):
    with pytest.raises(UserError, match="other files"), StudyFolder(base).held():
        pass


def test_a_config_named_in_the_defaults_is_watched_and_no_other(base):
    (base / "mine.yaml").rename(base / "shared.yaml")
    (base / "mine.yaml").write_text("defaults: [shared, _self_]\n")
    (base / "unrelated.yaml").write_text("a: 1\n")
    found = plan(base)
    configs = {name for name in found.files if name.endswith(".yaml")}
    assert configs == {str(base / "mine.yaml"), str(base / "shared.yaml")}
    folder = StudyFolder(base / "out")
    with folder.held():
        registered = folder.register(found, questions(study(base), found), ())
    with (base / "shared.yaml").open("a") as shared:
        shared.write("# another line\n")
    assert folder.changed_file(registered) == str(base / "shared.yaml")
