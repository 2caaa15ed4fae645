"""What may stand in study.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nequip_decorr.errors import UserError
from nequip_decorr.study.config import read_study, study_of

MD = {"structures": "start.extxyz", "temperatures_K": [1200, 300], "horizon_ps": 1}


@pytest.fixture
def base(tmp_path):
    (tmp_path / "my.yaml").write_text("run: [train]")
    (tmp_path / "start.extxyz").write_text("")
    return tmp_path


def minimal(**changes):
    return {
        "config": "my.yaml",
        "seeds": 3,
        "variants": {"none": [], "decorr": ["+nequip_decorr=constant"]},
    } | changes


def test_example(base):
    study = study_of(minimal(md={"hot": MD, "nve": {**MD, "ensemble": "nve"}}), base)
    assert study.config == base / "my.yaml"
    assert study.seeds == (1, 2, 3)
    assert study.baseline == "none"
    assert study.md[0].conditions == ("hot@1200K", "hot@300K")
    assert [s.is_drift for s in study.md] == [False, True]
    assert study.primary is not None
    assert (study.primary.variant, study.primary.condition) == ("decorr", "hot@1200K")
    assert study.primary.event == "unphysical"


def test_one_protocol_needs_no_name(base):
    assert [s.name for s in study_of(minimal(md=MD), base).md] == ["md"]


def test_simulations_of_several_studies_in_one_file(base):
    """Paths in it start at its folder."""
    (base / "shared").mkdir()
    (base / "shared" / "start.extxyz").write_text("")
    (base / "shared" / "md.yaml").write_text(yaml.safe_dump({"hot": MD}))
    (found,) = study_of(minimal(md="shared/md.yaml"), base).md
    assert found.name == "hot"
    assert found.structures == base / "shared" / "start.extxyz"
    (base / "shared" / "md.yaml").write_text("- 1")
    with pytest.raises(UserError, match=r"md\.yaml"):
        study_of(minimal(md="shared/md.yaml"), base)


def test_without_a_primary_question(base):
    assert study_of(minimal(md=MD, primary=False), base).primary is None


def test_executors(base):
    def executor(value):
        return study_of(minimal(executor=value), base).executor

    assert executor("local").processes is None
    assert executor({"local": {"processes": 4}}).processes == 4
    slurm = executor({"slurm": {"partition": "gpu", "time_min": 240, "mem_gb": 1.5}})
    assert slurm.slurm == {"partition": "gpu", "time": 240, "mem": "1536MB"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sedes": 3}, "did you mean 'seeds'"),
        ({"seeds": 0}, ">= 1"),
        ({"seeds": [1, 1]}, "once"),
        ({"seeds": [1, -1]}, ">= 0"),
        ({"seeds": "many"}, "seeds"),
        ({"config": "other.yaml"}, "which does not exist"),
        ({"variants": {}}, "at least one variant"),
        ({"variants": {"a b": []}}, "rename"),
        ({"variants": {"none": "lr=1"}}, "list of strings for `variants.none`"),
        ({"md": {"hot": {**MD, "horizon": 1}}}, "horizon_ps"),
        ({"md": {"hot": {**MD, "horizon_ps": -1}}}, "md.hot"),
        ({"md": {"hot": {**MD, "engine": "lammps"}}}, "torchsim"),
        ({"md": {"hot": {"temperatures_K": [300]}}}, "hot.structures`, got None"),
        ({"executor": "slrum"}, "did you mean 'slurm'"),
        ({"executor": {"slurm": {"partitoin": "x"}}}, "did you mean 'partition'"),
        ({"executor": {"slurm": {"partition": "gpu"}}}, "time_min"),
        ({"executor": "slurm"}, "time_min"),
        ({"executor": {"local": {"gpu": 1}}}, "did you mean 'gpus'"),
        ({"executor": {"local": {"processes": 0}}}, ">= 1"),
        ({"md": MD, "primary": {"variant": "decor"}}, "did you mean 'decorr'"),
        ({"md": MD, "primary": {"condition": "md@600K"}}, "md@1200K"),
        ({"md": MD, "primary": {"event": "fire"}}, "explosion"),
        ({"primary": {"test": "ood"}}, "test and metric"),
        ({"device": "cdua"}, "cpu or cuda"),
        ({"compile": "yes"}, "true or false"),
        ({"test": {"ood": "nowhere.xyz"}}, "which does not exist"),
    ],
)
def test_refused(base, changes, said):
    with pytest.raises(UserError, match=said.replace(".", r"\.")) as error:
        study_of(minimal(**changes), base)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("missing", ["config", "seeds", "variants"])
def test_needed(base, missing):
    data = minimal()
    del data[missing]
    with pytest.raises(UserError, match=missing):
        study_of(data, base)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1", r"a mapping \(NAME: VALUE\) for a study in .*, got \[1\]"),
        ("a: [", "expected a study in YAML"),
        (None, r"expected a study in YAML, got .*No such file"),
    ],
    ids=["list", "broken", "none"],
)
def test_not_a_study(base, text, said):
    path = base / "study.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_study(path)


@pytest.mark.parametrize("section", ["variants", "md"])
def test_a_name_that_is_there_twice_is_refused(base, section):
    """YAML would keep the last, and the study lack what the user asked for."""
    once = {"variants": "a: []", "md": f"a: {MD}"}[section]
    rest = minimal() | {section: None}
    text = yaml.safe_dump({k: v for k, v in rest.items() if v is not None})
    path = base / "study.yaml"
    path.write_text(f"{text}{section}:\n  {once}\n  b: []\n  {once}\n")
    with pytest.raises(UserError, match="a is there twice") as error:
        read_study(path)
    assert "\n" not in str(error.value)


def test_keys_of_an_anchor_may_be_given_again(base):
    text = yaml.safe_dump(minimal())
    cold = "  cold:\n    <<: *hot\n    temperatures_K: [100]\n"
    (base / "study.yaml").write_text(f"{text}md:\n  hot: &hot {MD}\n{cold}")
    hot, cold = read_study(base / "study.yaml").md
    assert hot.protocol.temperatures_K == (1200, 300)
    assert cold.protocol.temperatures_K == (100,)
    assert cold.structures == hot.structures
    both = "  both:\n    <<: *hot\n    <<: {replicas: 3}\n"
    (base / "study.yaml").write_text(f"{text}md:\n  hot: &hot {MD}\n{both}")
    assert read_study(base / "study.yaml").md[1].protocol.replicas == 3


def test_paths_start_at_the_file(base, monkeypatch):
    monkeypatch.chdir("/")
    (base / "study.yaml").write_text(yaml.safe_dump(minimal()))
    assert read_study(base / "study.yaml").config == Path(base) / "my.yaml"
