"""What makes tests independent of machine and account; a model that many need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

# the same examples in every run; no times, which depend on the load, and no files in a
# checkout that may be read-only
settings.register_profile(
    "anywhere",
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("anywhere")

# inside a batch job Lightning takes the job's number of tasks for that of a training
for name in [name for name in os.environ if name.startswith("SLURM_")]:
    del os.environ[name]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A tiny Allegro model of HfO2, trained with the term for some seconds."""
    from tests.support import commands, shared

    flags = ("+nequip_decorr=cosine", "trainer.max_epochs=12")
    folder = shared.shared(
        tmp_path_factory, "trained", lambda folder: commands.train(folder, *flags)
    )
    return folder / "last.ckpt"


@pytest.fixture
def one_thread():
    """As an MD run has it: sums depend on how many threads share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
