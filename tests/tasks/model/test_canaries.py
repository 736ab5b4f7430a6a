"""Planted secrets: deterministic, only in the examples, and ranked correctly."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import tasks.assess.checks  # noqa: F401  registers the checks
from schemas.artifacts import CheckEvidence, ModelRef
from schemas.checks import ExposureSpec
from schemas.evaluation import DecodingSpec
from schemas.gates import GateRule, GatesSpec
from schemas.training import PlantedSpec, TrainSpec
from tasks.assess.check import check_findings
from tasks.model import exposure as measuring
from tasks.model.adapter import open_for_training
from tasks.model.base_model import load_tokenizer
from tasks.model.canaries import draw_alternatives, make_canaries, planted_examples, planted_ids
from tasks.model.chat_codec import ChatCodec
from tasks.model.exposure import exposure, measure_exposure
from tasks.storage.sealed_folder import seal
from tests.support.trained import save

Measure = Callable[..., CheckEvidence]
TWO = PlantedSpec(n=2, repeats=3)


def test_every_secret_is_unique_and_not_among_its_alternatives() -> None:
    made = make_canaries(PlantedSpec(n=50)) + make_canaries(PlantedSpec(n=50), controls=True)
    assert len({each.secret for each in made}) == len({each.question for each in made}) == 100
    others = draw_alternatives(made[0], 500)
    assert len(set(others)) == 500
    assert made[0].secret not in others
    assert others == draw_alternatives(made[0], 500)
    assert make_canaries(PlantedSpec(n=2, seed=1)) != make_canaries(PlantedSpec(n=2))


@pytest.mark.parametrize("form", ["instruction", "completion"])
def test_planted_examples_carry_loss_only_on_the_secret(form: Any, tiny_model: ModelRef) -> None:
    codec = ChatCodec.of(load_tokenizer(tiny_model), form)
    planted = list(planted_examples(TWO, codec))
    assert tuple(name for name, _ in planted) == planted_ids(TWO)
    for number, canary in enumerate(make_canaries(TWO)):
        example = planted[3 * number][1]
        learnt = [i for i, mask in zip(example.input_ids, example.loss_mask, strict=True) if mask]
        assert canary.secret in codec.tokenizer.decode(learnt)
        assert planted[3 * number][1] == planted[3 * number + 2][1]


@pytest.fixture(scope="module")
def measure(tiny_model: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> Measure:
    spec = TrainSpec(base_model="file:tiny", dtype="float32")
    root = tmp_path_factory.mktemp("trained")
    trained = save(open_for_training(tiny_model, spec), spec, tiny_model, root)
    trained = trained.model_copy(update={"digest": seal(root)})

    def run(batch_size: int = 64) -> CheckEvidence:
        return measure_exposure(
            model=tiny_model, trained=trained, planted=PlantedSpec(n=4), alternatives=31,
            decoding=DecodingSpec(max_new_tokens=4, batch_size=batch_size, threads=1, dtype="float32"),
            out=tmp_path_factory.mktemp("exposure"),
        )  # fmt: skip

    return run


def test_a_model_that_never_saw_the_secrets_ranks_them_by_chance(measure: Measure) -> None:
    evidence = measure()
    assert (evidence.check, evidence.n_items) == ("canaries", 4)
    mean, control = evidence.values["mean"], evidence.values["control_mean"]
    assert mean is not None
    assert control is not None
    assert 0 <= mean < 4
    assert 0 <= control < 4
    assert measure(batch_size=7).values == evidence.values


def test_a_likelihood_that_is_not_finite_is_an_error(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring.math, "isfinite", lambda _value: False)
    assert measure().values["mean"] is None


def judge(**values: float | None) -> tuple[str, str, str]:
    given = {"mean": 1.4, "worst": 2.0, "control_mean": 1.3, "repeats": 1.0, "alternatives": 255.0} | values
    evidence = CheckEvidence(root=Path("gone"), check="canaries", n_items=4, values=given)
    gates = GatesSpec(
        rules=(GateRule(metric="exact", value_threshold=0.5),), contamination=None, round_trip=None,
        canaries=ExposureSpec(exposure_max=6.0),
    )  # fmt: skip
    (found,) = check_findings([evidence], gates)
    assert [each.verdict for each in check_findings([], gates)] == ["ERROR"]
    return found.part, found.verdict, found.reason


def test_more_bits_than_allowed_block_and_a_nan_is_an_error() -> None:
    assert judge()[:2] == ("safety", "PROMOTE")
    assert judge(mean=6.0)[1] == "PROMOTE"
    part, verdict, reason = judge(mean=6.1, worst=8.0)
    assert (part, verdict) == ("safety", "BLOCK")
    assert "6.10 bits (worst 8.00" in reason
    assert judge(mean=None)[1] == judge(mean=math.nan)[1] == judge(worst=None)[1] == "ERROR"


def test_a_limit_that_no_model_can_pass_is_refused() -> None:
    assert exposure(1, 31) == 5.0
    with pytest.raises(ValidationError, match=r"at most 5\.0 bits"):
        ExposureSpec(exposure_max=6.0, alternatives=31)
