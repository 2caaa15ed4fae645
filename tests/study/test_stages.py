"""What the stages prepare, and what they keep."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st

from nequip_decorr.errors import UserError
from nequip_decorr.study import stages


def test_a_training_without_a_checkpoint_starts_in_an_empty_folder(tmp_path):
    (tmp_path / "best.ckpt").touch()
    assert stages.prepare("train", ("nequip-train",), tmp_path) == ("nequip-train",)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", ["compile", "compile-torchsim"])
def test_a_compiled_model_is_moved_when_it_is_complete(tmp_path, stage):
    """For whichever engine; what an earlier attempt has left is removed."""
    (tmp_path / "partial.nequip.pt2").touch()
    assert stages.prepare(stage, ("nequip-compile",), tmp_path) == ("nequip-compile",)
    assert not list(tmp_path.iterdir())
    stages.partial_model(tmp_path).write_text("model")
    assert stages.harvest(stage, tmp_path, []) == {"model": "model.nequip.pt2"}
    assert stages.compiled_model(tmp_path).read_text() == "model"


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_model_that_diverged_fails_its_test(tmp_path, value):
    header = "epoch,test0_epoch/energy_rmse,test0_epoch/forces_rmse"
    (tmp_path / "metrics.csv").write_text(f"{header}\n1,0.1,{value}\n")
    with pytest.raises(UserError, match=f"forces_rmse = {value} on ood; .* diverged"):
        stages.harvest("test", tmp_path, ["ood"])


def log_of_a_test(folder, *metrics):
    columns = [f"test{i}_epoch/{metric}" for i in (0, 1) for metric in metrics]
    values = [f"{number / 10}" for number in range(len(columns))]
    lines = [",".join(["epoch", *columns]), ",".join(["1", *values])]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


def test_errors_are_kept_of_all_that_is_logged(tmp_path):
    log_of_a_test(tmp_path, "weighted_sum", "forces_rmse", "edge_correlation")
    found = stages.harvest("test", tmp_path, ["a", "b"])["errors"]
    assert found == {"a": {"forces_rmse": 0.1}, "b": {"forces_rmse": 0.4}}


def test_columns_of_other_callbacks_are_no_errors(tmp_path):
    header = "epoch,test_seconds,test0_epoch/forces_rmse"
    (tmp_path / "metrics.csv").write_text(f"{header}\n1,3.5,0.1\n")
    found = stages.harvest("test", tmp_path, ["a"])["errors"]
    assert found == {"a": {"forces_rmse": 0.1}}


def test_metrics_with_names_of_the_users_own_are_kept_as_well(tmp_path):
    log_of_a_test(tmp_path, "weighted_sum", "F_MAE", "forces_mse")
    found = stages.harvest("test", tmp_path, ["a", "b"])["errors"]
    assert found["b"] == {"F_MAE": 0.4, "forces_mse": 0.5}


@given(text=st.text(st.sampled_from("ab/ ,=[]{}$'\"\\:"), max_size=12))
@example(text=r"/home/o'brien/a\b")
@example(text="ends with a backslash\\")
def test_hydra_reads_what_was_quoted(text):
    value = stages.quoted(text)
    one = OverridesParser.create().parse_override(f"key={value}").value()
    assert one == text
    listed = OverridesParser.create().parse_override(f"key={{a: {value}}}").value()
    assert listed == {"a": text}


def test_commands_are_those_beside_python_or_on_the_path(tmp_path, monkeypatch):
    """Scripts of `pip install --user` are not beside the interpreter."""
    monkeypatch.setattr(stages, "BIN", tmp_path / "python")
    monkeypatch.setenv("PATH", str(tmp_path / "user"))
    with pytest.raises(UserError, match=r"nequip-train in .*python or on the PATH"):
        stages.nequip_train(tmp_path / "mine.yaml", tmp_path / "out")
    for folder in ("user", "python"):
        script = tmp_path / folder / "nequip-train"
        script.parent.mkdir()
        script.touch(mode=0o755)
        assert stages.nequip_train(tmp_path / "a.yaml", tmp_path)[0] == str(script)


@pytest.mark.parametrize("stage", ["inspect", "md-hot"])
def test_a_damaged_file_fails_its_task(tmp_path, stage):
    for name in ("inspect.json", "result.json"):
        (tmp_path / name).write_text("{")
    with pytest.raises(UserError):
        stages.harvest(stage, tmp_path, [])
