"""Settings: defaults next to pipelines.yaml, overridden by the environment, without touching the disk."""

from pathlib import Path

from flows.workspace.settings import load_settings


def test_state_is_next_to_the_file_by_default(tmp_path):
    settings = load_settings(tmp_path / "pipelines.yaml", environ={})
    assert settings.home == tmp_path / ".tunegate"
    assert settings.cache == Path.home() / ".cache" / "tunegate"
    assert settings.prefect_api_url is None
    assert settings.mlflow_tracking_uri is None
    assert settings.ledger_url is None
    assert list(tmp_path.iterdir()) == []


def test_the_environment_overrides_but_an_empty_variable_does_not(tmp_path):
    settings = load_settings(
        tmp_path / "pipelines.yaml",
        environ={
            "TUNEGATE_HOME": "~/state", "TUNEGATE_CACHE": "relative", "PREFECT_API_URL": "http://p/api",
            "MLFLOW_TRACKING_URI": "", "TUNEGATE_LEDGER_URL": "postgresql://db/ledger",
            "RAY_ADDRESS": "10.0.0.5:6379", "TUNEGATE_SHARED": "",
        },
    )  # fmt: skip
    assert settings.home == Path.home() / "state"
    assert settings.cache == Path.cwd() / "relative"
    assert settings.prefect_api_url == "http://p/api"
    assert settings.ledger_url == "postgresql://db/ledger"
    assert settings.mlflow_tracking_uri is None
    assert (settings.ray_address, settings.shared_storage) == ("10.0.0.5:6379", None)


def test_the_cache_follows_the_desktop_convention(tmp_path):
    settings = load_settings(tmp_path / "p.yaml", environ={"XDG_CACHE_HOME": str(tmp_path / "c")})
    assert settings.cache == tmp_path / "c" / "tunegate"
