"""The coefficient over a training that is interrupted: one curve for all loaders."""

from fractions import Fraction

import pytest

from nequip_decorr.errors import UserError
from nequip_decorr.training.course import Course
from nequip_decorr.training.options import read_schedule
from nequip_decorr.training.progress import Progress


def curve(course, loaders, max_epochs):
    """Coefficients by progress; ``loaders`` are the steps of each epoch in turn."""
    found, made = {}, 0
    for epoch, length in enumerate(loaders):
        for step in range(length):
            now = Progress(epoch, step, length, made)
            course.locate(now, max_epochs, -1)
            found[epoch + Fraction(step, length)] = course.coefficient()
            made += 1
    return found


def course(unit="step", **options):
    return Course(read_schedule({"unit": unit, **options}))


@pytest.mark.parametrize("unit", ["step", "epoch"])
@pytest.mark.parametrize("loaders", [[5, 5, 2, 2], [2, 2, 5, 5], [10, 1, 3, 10]])
def test_a_change_of_loader_does_not_bend_the_curve(unit, loaders):
    whole = curve(course(unit), [30] * 4, 4)
    changed = curve(course(unit), loaders, 4)
    assert len(changed) == sum(loaders)
    for epochs, coefficient in changed.items():
        assert coefficient == pytest.approx(whole[epochs], rel=1e-12)


def test_both_units_give_one_curve():
    by_step = curve(course("step", delay=10, stop=30), [10] * 4, 4)
    by_epoch = curve(course("epoch", delay=1, stop=3), [10] * 4, 4)
    assert by_step == pytest.approx(by_epoch, rel=1e-12)


def test_a_restart_keeps_the_scale_of_steps():
    first = course(delay=10, stop=30)
    curve(first, [10], 4)
    resumed = course(delay=10, stop=30)
    resumed.restore(first.state())
    resumed.locate(Progress(2, 1, 4, 25), 4, -1)  # 4 steps an epoch from now on
    assert resumed.position == 22.5
    assert resumed.end == 40
    fresh = course(delay=10, stop=30)
    fresh.locate(Progress(2, 1, 4, 25), 4, -1)
    assert fresh.position == 9


def test_a_state_from_before_the_first_batch_has_no_scale():
    resumed = course()
    resumed.restore(course().state())
    resumed.locate(Progress(0, 3, 10, 3), 4, -1)
    assert resumed.position == 3


def test_a_stop_takes_the_place_of_the_end():
    short = course(stop=20)
    short.locate(Progress(1, 0, 10, 10), 4, -1)
    assert short.end == 40
    assert short.coefficient() == pytest.approx(1.5)


@pytest.mark.parametrize("loaders", [[5, 5, 2, 2], [10, 1, 3, 10]])
def test_fractions_are_those_of_the_whole_training(loaders):
    options = {"delay": 0.25, "start": 0.5, "stop": 0.75, "warmup": 0.1}
    in_epochs = {name: 4 * value for name, value in options.items()}
    expected = curve(course("epoch", **in_epochs), [30] * 4, 4)
    found = curve(course("fraction", **options), loaders, 4)
    assert len(found) == sum(loaders)
    for epochs, coefficient in found.items():
        assert coefficient == pytest.approx(expected[epochs], rel=1e-12)


def test_fractions_of_a_training_that_ends_by_its_steps():
    halfway = course("fraction", stop=0.5)
    halfway.locate(Progress(1, 5, 10, 15), -1, 30)
    assert (halfway.position, halfway.epochs) == (0.5, 3)
    assert halfway.coefficient() == 0


def test_a_relative_coefficient_is_a_multiple_of_the_running_loss():
    relative = course(kind="constant", coeff=3.0, relative=True)
    relative.locate(Progress(0, 0, 10, 0), 4, -1)
    assert relative.coefficient() == 0
    relative.running_loss.add(0.5, stepped=True)
    assert relative.coefficient() == pytest.approx(1.5)
    resumed = course(kind="constant", coeff=3.0, relative=True)
    resumed.restore(relative.state())
    assert resumed.coefficient() == relative.coefficient()


def test_a_training_that_was_not_relative_has_no_running_loss_to_restore():
    resumed = course(kind="constant", relative=True)
    resumed.restore(course(kind="constant").state())
    assert resumed.running_loss.value == 0


@pytest.mark.parametrize(
    "options",
    [{"kind": "target", "level": 0.05}, {"kind": "constant", "relative": True}],
)
def test_a_term_that_was_off_leaves_nothing_to_a_restart(options):
    """It has seen no batch of the training, or those of long before."""
    off = course(**options, coeff=0)
    assert (off.state()["feedback"], off.state()["running_loss"]) == ({}, {})


def test_feedback_begins_with_the_coefficient_that_a_restart_changes():
    running = course(kind="target", level=0.05, coeff=0.3)
    running.controller.measured(0.5)
    state = running.state() | {"settings": {"schedule": {"coeff": 0.3}}}
    for coeff, expected in ((0.3, running.controller.coeff), (1.5, 1.5)):
        resumed = course(kind="target", level=0.05, coeff=coeff)
        resumed.restore(state)
        assert resumed.controller.coeff == expected
        assert resumed.controller.error_average == running.controller.error_average


def test_the_guard_begins_anew_with_another_error():
    """The best of one is no measure for the other."""
    options = {"kind": "target", "level": 0.05}
    running = course(**options)
    running.controller.validated(0.2)
    before = {"schedule": {"guard_monitor": "val0_epoch/forces_mae"}}
    for monitor, best in (("forces_mae", 0.2), ("forces_rmse", 0.28)):
        resumed = course(**options, guard_monitor=f"val0_epoch/{monitor}")
        resumed.restore(running.state() | {"settings": before})
        resumed.controller.validated(0.28)
        assert resumed.controller.guard.best == best
        assert resumed.controller.guard.active == (monitor == "forces_mae")


def test_a_training_of_no_epochs():
    found = course(unit="fraction")
    found.check(0, -1)
    assert found.position == found.end == 1


@pytest.mark.parametrize(
    ("options", "limits", "message"),
    [
        (
            {"unit": "fraction", "stop": 0.5},
            (-1, -1),
            "fractions of a training without an end in epochs; set trainer.max_epochs",
        ),
        (
            {},
            (-1, -1),
            "without an end in steps; set trainer.max_steps or `schedule.stop`",
        ),
        ({"unit": "epoch"}, (-1, -1), "in epochs; set trainer.max_epochs"),
        ({"unit": "epoch", "delay": 5}, (5, -1), "stop 5 <= start 5"),
    ],
)
def test_limits_that_are_too_short_are_known_before_the_data(options, limits, message):
    with pytest.raises(UserError, match=message) as error:
        course(**options).check(*limits)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        ({"stop": 10}, (-1, -1)),
        ({"unit": "fraction"}, (-1, 100)),  # of epochs not known yet
        ({"kind": "constant", "coeff": 3.0}, (-1, -1)),
        ({"delay": 100}, (100, -1)),  # steps, of a loader not seen yet
        ({"delay": 100}, (-1, 100)),  # steps, of which a restart may have longer ones
    ],
)
def test_what_cannot_be_known_is_not_refused(options, limits):
    course(**options).check(*limits)


def test_a_restart_with_fewer_and_longer_steps():
    """Ten epochs of 200 steps, then ten of 50: 4000 steps of those before."""
    first = course(delay=3000)
    first.locate(Progress(9, 0, 200, 1800), -1, 2000)
    resumed = course(delay=3000)
    resumed.check(-1, 2500)
    resumed.restore(first.state())
    resumed.locate(Progress(10, 0, 50, 2000), -1, 2500)
    assert (resumed.position, resumed.end) == (2000, 4000)
    assert resumed.coefficient() == 0.0
