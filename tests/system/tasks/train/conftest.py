"""Fixtures shared with tests/tasks/train."""

from tests.tasks.train.conftest import dataset, make_dataset, make_spec, processes, run
