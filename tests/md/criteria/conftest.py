"""A crystal that the criteria are tried on."""

import pytest
from ase.build import bulk


@pytest.fixture
def copper():
    return bulk("Cu", cubic=True) * (2, 2, 2)
