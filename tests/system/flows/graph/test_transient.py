"""Which errors Prefect retries. Reading a state starts threads of Prefect that stay."""

import pytest
from prefect.states import Failed

from flows.graph.prefect_runner import is_transient
from schemas.errors import ConfigError, DataError, ProcessLostError, ServiceError, StorageError, TrainingError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ServiceError("no answer", code="TG0704"), True),
        (ProcessLostError("killed by signal 9", code="TG0407"), True),
        (ConfigError("no such key", code="TG0101"), False),
        (DataError("row 3", code="TG0210"), False),
        (TrainingError("loss is not finite", code="TG0401"), False),
        (StorageError("the disk is full", code="TG0501"), False),
        (ValueError("no"), False),
        (ConnectionError("lost"), False),  # from a step, this is a ServiceError already
    ],
)
def test_only_transient_errors_are_retried(error, expected):
    assert is_transient(None, None, Failed(data=error)) is expected
