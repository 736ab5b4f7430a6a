"""Which requests to MLflow's servers come from a page of another origin."""

import configparser

import pytest

from flows.workspace.servers import MLFLOW_LOGINS
from infra.stack.services import LOGINS
from tasks.release.mlflow_door import admit, is_foreign

OWN = {"Host": "127.0.0.1:5000"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://127.0.0.1:5000"},
        {"Origin": "http://127.0.0.1:5000", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_programs_own_pages_and_links_may_call(headers: dict[str, str]) -> None:
    assert not is_foreign(OWN | headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://127.0.0.1:5001"},
        {"Origin": "http://localhost:5000"},
        {"Origin": "http://127.0.0.1:5000.evil.example"},
        {"Origin": "http://evil.example/127.0.0.1:5000"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_pages_of_other_origins_may_not(headers: dict[str, str]) -> None:
    assert is_foreign(OWN | headers)


def test_the_local_server_and_the_stack_use_it() -> None:
    for file in (MLFLOW_LOGINS, LOGINS):
        logins = configparser.ConfigParser()
        logins.read(file)
        assert logins["mlflow"]["authorization_function"] == f"{admit.__module__}:{admit.__name__}"
