"""`tunegate try FILE`, as far as it needs no model."""

from pathlib import Path

from tests.support import strangers
from tests.support.commands import NOWHERE, run_here


def test_a_try_of_personal_ids_without_a_key_makes_pseudonyms_with_one_that_nothing_keeps(tmp_path: Path) -> None:
    """With a key the run goes on to the model, which is absent here; without one it would end with TG0190."""
    words = ["try", strangers.public_desk(tmp_path).name, "--set", "train.base_model=file:no-such-model"]
    said = run_here(words, cwd=tmp_path, environ={"HOME": str(tmp_path), "PREFECT_API_URL": NOWHERE}).stderr
    assert "TUNEGATE_PSEUDONYM_KEY is not set: this try makes pseudonyms with a random key that is not kept" in said
    assert "error[TG0171]: base_model" in said
    # A key that is too short to be one is the user's mistake.
    environ = {"HOME": str(tmp_path), "PREFECT_API_URL": NOWHERE, "TUNEGATE_PSEUDONYM_KEY": "short"}
    said = run_here(words, cwd=tmp_path, environ=environ).stderr
    assert "error[TG0190]" in said
    assert "not kept" not in said
