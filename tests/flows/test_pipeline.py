"""Which errors end a run: ours do, Prefect's only end the use of Prefect."""

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.pipeline import is_of_prefect
from schemas.errors import ServiceError
from tasks.files import sha256_file
from tests.support.commands import NOWHERE


@pytest.fixture(autouse=True)
def nowhere() -> object:
    with temporary_settings({PREFECT_API_URL: NOWHERE, PREFECT_CLIENT_MAX_RETRIES: 0}):
        yield


def test_errors_of_a_client_without_a_server_are_prefects() -> None:
    @flow
    def body() -> None:
        raise AssertionError("the flow must not run")

    with pytest.raises(RuntimeError, match="Failed to reach API") as builtin:
        body()
    assert is_of_prefect(builtin.value)
    with get_client(sync_client=True) as client, pytest.raises(Exception, match=r".+") as of_httpx:
        client.read_flow_runs()
    assert is_of_prefect(of_httpx.value)


def test_errors_of_our_code_are_ours_even_when_called_by_prefect(tmp_path: object) -> None:
    from prefect.utilities.callables import call_with_parameters

    with pytest.raises(FileNotFoundError) as below_prefect:
        call_with_parameters(sha256_file, {"path": tmp_path / "missing"})  # type: ignore[operator]
    assert not is_of_prefect(below_prefect.value)
    assert not is_of_prefect(ServiceError("it does not answer", code="TG0704"))
    assert not is_of_prefect(ValueError("never raised"))
