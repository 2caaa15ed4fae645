"""The ase engine on potentials whose motion is known in closed form."""

import numpy as np
import pytest
from ase import units
from ase.calculators.lj import LennardJones
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nequip_decorr.md import Criteria
from nequip_decorr.md.criteria.monitor import Watch
from nequip_decorr.md.criteria.warmth import warmth
from nequip_decorr.md.dynamics import engines
from nequip_decorr.md.dynamics.contract import Job, MDState
from nequip_decorr.md.protocol import Protocol, degrees_of_freedom
from nequip_decorr.md.structures import start_momenta
from tests.support.batched import CUTOFF_A, EPSILON_EV, SIGMA_A, agree, argon
from tests.support.oracle import ase_path
from tests.support.potentials import Beyond, Einstein, Free, K, crystal, flyer

ENSEMBLES = ["langevin", "nose-hoover", "nve", "ramp"]


def protocol(ensemble, **changes):
    if ensemble == "ramp":
        changes["ramp_end_temperature_K"] = 900.0
    return Protocol(ensemble=ensemble, **changes)


def start(atoms, protocol, temperature_K=300.0, seed=0):
    return MDState(
        step=0,
        positions_A=atoms.get_positions(),
        momenta=start_momenta(
            atoms,
            temperature_K,
            np.random.default_rng(seed),
            conserve_total=degrees_of_freedom(2, protocol.ensemble) == 3,
        ),
    )


class Recorder:
    """Observes everything up to a step; keeps a snapshot of one step."""

    def __init__(self, last_step, keep=None):
        self.frames = []
        self.last_step = last_step
        self.keep = keep
        self.kept = None

    def before_forces(self, replica, step, positions_A):
        return True

    def after_step(self, frame, snapshot):
        self.frames.append(frame)
        if frame.step == self.keep:
            self.kept = snapshot()
        return frame.step < self.last_step

    def fault(self, replica, step, error):
        raise error


def run(calculator, protocol, atoms, state, observer, temperature_K=300.0):
    job = Job(0, atoms, temperature_K, (1, 2, 3), state)
    engines.build("ase", calculator, protocol).run([job], observer)
    return observer


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_paths_are_those_of_ases_integrators(ensemble):
    """The same random numbers, forces that are not linear, and no wrapping."""
    atoms, how = argon(), protocol(ensemble, timestep_fs=2.0, horizon_ps=0.2)
    model = LennardJones(sigma=SIGMA_A, epsilon=EPSILON_EV, rc=CUTOFF_A)
    state = start(atoms, how, 120.0)
    frames = run(model, how, atoms, state, Recorder(100), 120.0).frames
    job = Job(0, atoms, 120.0, (1, 2, 3), state)
    agree(frames, ase_path(model, how, job, 100))


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_goes_on_bit_for_bit_from_a_snapshot(ensemble):
    atoms, how = crystal(), protocol(ensemble, timestep_fs=2.0, horizon_ps=0.1)
    atoms.positions += np.random.default_rng(5).normal(0, 0.05, (len(atoms), 3))
    spring = Einstein(crystal().positions, K)
    whole = run(spring, how, atoms, start(atoms, how), Recorder(40, keep=17))
    rest = run(Einstein(crystal().positions, K), how, atoms, whole.kept, Recorder(40))
    assert [f.step for f in rest.frames] == list(range(18, 41))
    for one, other in zip(whole.frames[18:], rest.frames, strict=True):
        assert one.energy_eV == other.energy_eV
        np.testing.assert_array_equal(one.positions_A, other.positions_A)
        np.testing.assert_array_equal(one.momenta, other.momenta)
        np.testing.assert_array_equal(one.forces_eV_per_A, other.forces_eV_per_A)


def test_the_model_is_called_once_a_step():
    atoms, how = crystal(), protocol("langevin", timestep_fs=2.0)
    spring = Einstein(atoms.positions, K)
    run(spring, how, atoms, start(atoms, how), Recorder(25))
    assert spring.calls == 26


def test_a_frame_stays_as_it_was():
    """What the observer was given is not written to later."""
    atoms, how = crystal(), protocol("langevin", timestep_fs=2.0)
    copies = []

    class Copier(Recorder):
        def after_step(self, frame, snapshot):
            copies.append((frame.positions_A.copy(), frame.momenta.copy()))
            return super().after_step(frame, snapshot)

    spring = Einstein(atoms.positions, K)
    frames = run(spring, how, atoms, start(atoms, how), Copier(10)).frames
    for frame, (positions, momenta) in zip(frames, copies, strict=True):
        np.testing.assert_array_equal(frame.positions_A, positions)
        np.testing.assert_array_equal(frame.momenta, momenta)


def test_nve_conserves_what_velocity_verlet_conserves():
    """For a spring, p^2/2m + k x^2/2 (1 - (w dt)^2/4) is conserved exactly.

    (Hairer, Lubich, Wanner, Geometric Numerical Integration, I.5: the modified energy
    of the harmonic oscillator.)
    """
    atoms, how = crystal(), protocol("nve", timestep_fs=4.0)
    spring = Einstein(crystal().positions, K)
    frames = run(spring, how, atoms, start(atoms, how), Recorder(300)).frames
    mass = atoms.get_masses()[0]
    phase = K / mass * (4.0 * units.fs) ** 2
    energies = [
        (f.momenta**2).sum() / (2 * mass) + f.energy_eV * (1 - phase / 4)
        for f in frames
    ]
    np.testing.assert_allclose(energies, energies[0], rtol=1e-11)
    plain = [(f.momenta**2).sum() / (2 * mass) + f.energy_eV for f in frames]
    assert np.ptp(plain) > 1e-6 * plain[0]


@pytest.mark.parametrize(
    ("ensemble", "dof"), [("langevin", 96), ("nose-hoover", 93), ("nve", 93)]
)
def test_degrees_of_freedom(ensemble, dof):
    assert degrees_of_freedom(32, ensemble) == dof


@pytest.mark.slow
def test_langevin_samples_the_canonical_distribution():
    """2 Ekin / kT of 32 atoms is chi-square distributed with 96 degrees of freedom,
    and 2 Epot / kT of 96 springs too (BAOAB: exact for springs but for O(dt^2)).
    """
    atoms = crystal()
    how = protocol("langevin", timestep_fs=3.0, friction_per_fs=0.02)
    spring = Einstein(crystal().positions, K)
    frames = run(spring, how, atoms, start(atoms, how), Recorder(12_000)).frames
    kT = units.kB * 300.0
    # a sample every 90 fs, after 3 ps; the friction's time is 50 fs, springs turn
    # round in about 290 fs
    kinetic = [(f.momenta**2 / atoms.get_masses()[:, None]).sum() / kT for f in frames]
    potential = [2 * f.energy_eV / kT for f in frames]
    for samples, every in ((kinetic, 30), (potential, 90)):
        test = stats.kstest(samples[1000::every], stats.chi2(96).cdf)
        assert test.pvalue > 1e-3


@pytest.mark.slow
def test_nose_hoover_keeps_its_temperature():
    """3N - 3 degrees of freedom: the mean is T0, not T0 x 3N / (3N - 3)."""
    atoms = crystal()[:4]
    how = protocol("nose-hoover", timestep_fs=2.0, thermostat_time_fs=40.0)

    class Coupled(Einstein):
        """Springs to a neighbour as well: total momentum is conserved."""

        def field(self, positions):
            away = positions - self.sites
            away -= away.mean(axis=0)
            quartic = (away**4).sum()
            return (
                0.5 * self.k * (away**2).sum() + quartic,
                -self.k * away - 4 * (away**3 - (away**3).mean(axis=0)),
            )

    model = Coupled(atoms.positions.copy(), K)
    frames = run(model, how, atoms, start(atoms, how), Recorder(20_000)).frames
    momenta = np.array([f.momenta for f in frames[2000:]])
    assert np.abs(momenta.sum(axis=1)).max() < 1e-9
    masses = atoms.get_masses()[:, None]
    temperature = ((momenta**2 / masses).sum(axis=(1, 2)) / (9 * units.kB)).mean()
    assert temperature == pytest.approx(300.0, rel=0.03)


def test_the_ramp_heats():
    atoms = crystal()
    how = protocol("ramp", timestep_fs=2.0, horizon_ps=4.0, friction_per_fs=0.05)
    spring = Einstein(crystal().positions, K)
    frames = run(spring, how, atoms, start(atoms, how), Recorder(2000)).frames
    masses = atoms.get_masses()[:, None]
    measured = [(f.momenta**2 / masses).sum() / (96 * units.kB) for f in frames]
    for first, last in ((0, 500), (1500, 2000)):
        expected = np.mean([300 + 600 * s / 2000 for s in range(first, last)])
        # standard error of a mean over 1 ps: sqrt(2/96) / sqrt(1000 / (2 x 20)) = 3 %
        assert np.mean(measured[first:last]) == pytest.approx(expected, rel=0.12)


class Watched(Recorder):
    """Lets a Watch decide, as a run does."""

    def __init__(self, atoms, how, criteria, last_step):
        super().__init__(last_step)
        self.watch = Watch(
            atoms,
            criteria,
            timestep_fs=how.timestep_fs,
            degrees_of_freedom=degrees_of_freedom(len(atoms), how.ensemble),
            warmth=warmth(how, 300.0),
        )
        self.failed = None

    def before_forces(self, replica, step, positions_A):
        return self.judge(step, self.watch.before_forces(positions_A))

    def after_step(self, frame, snapshot):
        going = super().after_step(frame, snapshot)
        return self.judge(frame.step, self.watch.after_step(frame)) and going

    def fault(self, replica, step, error):
        self.failed = (step, "exception", repr(error))

    def judge(self, step, violation):
        if violation is not None:
            self.failed = (step, violation.cause, violation.message)
        return violation is None


CRITERIA = Criteria(
    max_atom_kinetic_eV=None, runaway_sigma=None, max_temperature_K=None
)


@given(
    speed_A_per_fs=st.floats(0.01, 0.4),
    start_A=st.floats(-5.0, 0.0),
    what=st.sampled_from(["nan-energy", "nan-forces", "inf-forces", "strong", "raise"]),
)
@settings(deadline=None, max_examples=40)
def test_a_hole_is_found_when_the_atom_enters_it(speed_A_per_fs, start_A, what):
    """x(t) = x0 + v t: the first step behind the plane is known beforehand."""
    atoms, how = flyer(), protocol("nve", timestep_fs=1.0)
    hole_A = 1.0
    flight = (hole_A - start_A) / speed_A_per_fs
    if abs(flight - round(flight)) < 1e-6:
        return
    first_inside = int(np.ceil(flight))
    momentum = atoms.get_masses()[0] * speed_A_per_fs / units.fs
    state = MDState(0, np.array([[start_A, 0, 0]]), np.array([[momentum, 0, 0]]))
    model = Beyond(hole_A, what)
    watched = run(model, how, atoms, state, Watched(atoms, how, CRITERIA, 3000))
    cause = {"strong": "blowup", "raise": "exception"}.get(what, "nonfinite")
    assert watched.failed[:2] == (first_inside, cause)
    # the model is called on step 0 .. first_inside and no further, but for asking
    # again where it raised and where it did not
    assert model.calls == first_inside + 1 + (2 if what == "raise" else 0)


@given(speed_A_per_fs=st.floats(0.51, 100.0))
@settings(deadline=None, max_examples=20)
def test_a_leap_is_seen_before_the_model_is_called(speed_A_per_fs):
    atoms, how = flyer(), protocol("nve", timestep_fs=1.0)
    momentum = atoms.get_masses()[0] * speed_A_per_fs / units.fs
    state = MDState(0, atoms.positions, np.array([[0, momentum, 0]]))
    model = Free()
    watched = run(model, how, atoms, state, Watched(atoms, how, CRITERIA, 9))
    assert watched.failed[:2] == (1, "blowup")
    assert model.calls == 1
