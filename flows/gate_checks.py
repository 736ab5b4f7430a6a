"""The steps that measure what the gate checks beside its rules; `flows/assess.py` runs them before the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from flows.chosen import chosen_names
from flows.engine.step import Input, Step
from schemas.artifacts import ChampionRef, Predictions, PromptSet, Scores
from schemas.checks import ForgettingSpec, LatencySpec
from schemas.evidence import CheckEvidence
from schemas.pipeline import PipelineSpec
from tasks.assess.contamination import check_contamination
from tasks.assess.economics import find_gpu
from tasks.assess.llm_judge import judge_answers, labels_digest
from tasks.assess.suite import build_suite, score_suite
from tasks.model.canaries import planted_ids
from tasks.model.divergence import measure_divergence
from tasks.model.exposure import measure_exposure
from tasks.model.generate import generate_answers
from tasks.model.latency import measure_latency
from tasks.model.round_trip import check_round_trip

SUITE_ARMS: dict[str, Literal["tuned", "zero_shot"]] = {"candidate": "tuned", "base": "zero_shot"}
"""Who answers the suite, and the arm it is."""
PROMPTING = ("zero_shot", "few_shot", "retrieval", "endpoint")
"""Whom a judge compares with before there is a champion: the first that is declared."""
MODEL_LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")


def check_steps(spec: PipelineSpec, champion: ChampionRef | None = None, root: Path = Path()) -> list[Step]:
    """A step per declared check. They take the splits, the encoded examples, `items`, the base model and `train`."""
    steps: list[Step] = []
    gates, names = spec.gates, chosen_names(spec.train)
    if gates.contamination is not None:
        steps.append(
            Step(
                "contamination",
                check_contamination,
                CheckEvidence,
                inputs={"dataset": names.dataset, "splits": "decontaminate", "items": "items"},
                params={
                    "spec": gates.contamination,
                    "decontaminate": spec.curate.decontaminate,
                    "planted": planted_ids(spec.train.canaries),
                },
                libraries=("duckdb", "numba", "numpy", "pyarrow", "scipy"),
            )
        )
    if gates.round_trip is not None:
        inputs: dict[str, Input | tuple[Input, ...]] = {
            "prompts": "prompts_tuned", "predictions": "answers_tuned", "model": names.model, "trained": "train",
        }  # fmt: skip
        params = {"decoding": spec.evaluate.decoding(), "n_prompts": gates.round_trip.n_prompts}
        steps.append(Step("round_trip", check_round_trip, CheckEvidence, inputs, params, libraries=MODEL_LIBRARIES))
    if gates.canaries is not None and spec.train.canaries is not None:
        params = {
            "decoding": spec.evaluate.decoding(),
            "planted": spec.train.canaries,
            "alternatives": gates.canaries.alternatives,
        }
        loaded: dict[str, Input] = {"model": names.model, "trained": "train"}
        steps.append(
            Step("canaries", measure_exposure, CheckEvidence, loaded, params, libraries=MODEL_LIBRARIES, reports=True)
        )
    if gates.latency is not None:
        steps.append(_latency(spec, gates.latency, champion))
    if gates.judge is not None:
        before = "champion" if champion is not None else next(arm for arm in PROMPTING if arm in spec.evaluate.arms)
        judged: dict[str, Input] = {
            "items": "items", "candidate": "answers_tuned", "reference": f"answers_{before}",
        }  # fmt: skip
        steps.append(
            Step(
                "judge", judge_answers, CheckEvidence, judged, {"spec": gates.judge}, {"root": root},
                also={"labels": labels_digest(gates.judge, root=root)}, resumable=True, reports=True,
            )
        )  # fmt: skip
    if gates.forgetting is not None:
        steps += _forgetting(spec, gates.forgetting)
    return steps


def suite_inputs(spec: PipelineSpec) -> dict[str, Input]:
    """What the gate takes of the suite, where it is asked."""
    return {} if spec.gates.forgetting is None else {f"suite_{arm}": f"scores_suite_{arm}" for arm in SUITE_ARMS}


def _latency(spec: PipelineSpec, latency: LatencySpec, champion: ChampionRef | None) -> Step:
    """Candidate and champion in turn; without a champion, candidate and base."""
    base, cost = chosen_names(spec.train).model, spec.gates.cost
    reference: dict[str, Input] = {"reference_prompts": "prompts_tuned", "reference_model": base}
    if champion is not None:
        reference = {
            "reference_prompts": "prompts_champion",
            "reference_model": champion.model,
            "reference_trained": champion.trained,
        }
    params: dict[str, object] = {"decoding": spec.evaluate.decoding(), "spec": latency}
    if cost is not None:
        params |= {"usd_per_hour": find_gpu(cost.machine).usd_per_hour, "usd_per_1k_max": cost.usd_per_1k_max}
    inputs: dict[str, Input] = {"prompts": "prompts_tuned", "model": base, "trained": "train", **reference}
    return Step("latency", measure_latency, CheckEvidence, inputs, params, libraries=MODEL_LIBRARIES, reports=True)


def _forgetting(spec: PipelineSpec, forgetting: ForgettingSpec) -> list[Step]:
    """Base and candidate answer the suite; answers are keyed as all answers, so a base does it once."""
    asked = {"suite": forgetting.suite, "max_items": forgetting.max_items, "seed": forgetting.seed}
    params = {**asked, "format": spec.train.format}
    names = chosen_names(spec.train)
    decoding = spec.evaluate.decoding().model_copy(update={"max_new_tokens": forgetting.max_new_tokens})
    steps = [Step("suite", build_suite, PromptSet, params=params, libraries=("pyarrow",))]
    for arm, named in SUITE_ARMS.items():
        model: dict[str, Input] = {"model": names.model, **({"trained": "train"} if arm == "candidate" else {})}
        steps += [
            Step(
                f"answers_suite_{arm}", generate_answers, Predictions, {"prompts": "suite", **model},
                {"decoding": decoding}, libraries=MODEL_LIBRARIES, resumable=True, reports=True, kind="answers",
            ),
            Step(
                f"scores_suite_{arm}", score_suite, Scores,
                {"suite": "suite", "predictions": f"answers_suite_{arm}"}, {"arm": named},
                libraries=("pyarrow",), kind="scores_suite",
            ),
        ]  # fmt: skip
    inputs: dict[str, Input] = {"suite": "suite", "model": names.model, "trained": "train"}
    divergence = Step(
        "divergence", measure_divergence, CheckEvidence, inputs, {"decoding": decoding}, libraries=MODEL_LIBRARIES
    )
    return [*steps, divergence]
