"""Short runs of a crystal of springs, and all that they leave behind."""

from nequip_decorr.md import results
from nequip_decorr.md.protocol import Protocol
from tests.support.potentials import AtCall, K, crystal

SHORT = Protocol(
    timestep_fs=2.0,
    horizon_ps=0.06,
    replicas=2,
    record_interval_steps=3,
    frame_interval_steps=7,
)


def springs(call=10**9, what=""):
    return AtCall(crystal().positions, K, call, what)


def ends(folder):
    """All that a run has found: replicas and recorded positions, to the last bit."""
    replicas = results.load(folder / "result.json").replicas
    files = {p.name: p.read_bytes() for p in (folder / "frames").iterdir()}
    return replicas, files
