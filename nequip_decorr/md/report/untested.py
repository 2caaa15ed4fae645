"""What could not be tested in trajectories of other programs, in words."""

from __future__ import annotations

from nequip_decorr.md.results import RunResult


def untested_lines(result: RunResult) -> list[str]:
    """One line for each test that was not made, and one on what frames do not show.

    Empty for a run of `nequip-decorr md`, which tests every step.
    """
    source = result.source
    if source is None:
        return []
    n = len(result.replicas)
    lines = []
    for item in source["not_tested"]:
        some = "" if item["n_replicas"] == n else f", {item['n_replicas']} of {n}"
        lines.append(f"not tested: {item['test']} ({item['why']}{some})")
    widest = max(source["frame_interval_steps"], default=1)
    if widest > 1:
        lines.append(
            f"tested only at frames, which are up to {widest} steps "
            f"({widest * result.timestep_fs:g} fs) apart: what happens between them is "
            "not seen"
        )
    return lines
