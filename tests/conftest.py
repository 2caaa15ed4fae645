"""What makes the tests independent of the machine and the account that runs them."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

# no times, which depend on the load, and no files in a checkout that may be read-only
settings.register_profile(
    "anywhere",
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("anywhere")

# inside a batch job Lightning takes the job's number of tasks for that of a training
for name in [name for name in os.environ if name.startswith("SLURM_")]:
    del os.environ[name]


@pytest.fixture
def one_thread():
    """As an MD run has it: sums depend on how many threads share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
