"""A training module as NequIP builds it, for each test a copy of its own."""

import copy

import pytest

from tests.support.trainings import training_module


@pytest.fixture(scope="module")
def built():
    return training_module()


@pytest.fixture
def module(built):
    return copy.deepcopy(built)
