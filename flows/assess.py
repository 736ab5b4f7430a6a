"""Sub-flow three: candidate, champion and baselines answer the same held-out items; the gate gives a verdict."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from prefect import flow

from flows.chosen import chosen_names
from flows.engine.step import Input, Late, Step
from flows.gate_checks import check_steps, suite_inputs
from flows.quarantine import within_limit
from flows.session import attach
from flows.standing import Standing, asks_for_anchor
from flows.steps import run_stage
from schemas.artifacts import (
    ChampionRef,
    EvalSet,
    GateDecision,
    Predictions,
    PromptSet,
    Scores,
    ValidationCurves,
)
from schemas.endpoint import EndpointSpec
from schemas.evaluation import DecodingSpec, EvaluateSpec
from schemas.evidence import CheckEvidence
from schemas.pipeline import PipelineSpec
from schemas.training import Format, PromptSpec
from tasks.assess.baselines import score_classifier
from tasks.assess.endpoint_arm import answer_by_endpoint
from tasks.assess.gate import decide
from tasks.assess.items import select_items
from tasks.assess.prompts import build_prompts
from tasks.assess.score import score_answers
from tasks.assess.user_metrics import entry_point_digest
from tasks.assess.validation import score_validation
from tasks.model.generate import generate_answers

PROMPTING_ARMS = ("zero_shot", "few_shot", "retrieval")
CLASSIFIER_ARMS = ("majority", "tfidf")


def assess_steps(spec: PipelineSpec, *, standing: Standing, root: Path = Path()) -> list[Step]:
    """The steps in order. They take `decontaminate`, the base model and `train`, and what the ledger says this moment.

    Answers are keyed by model, prompts and decoding, so base and champion answer each held-out set once.
    """
    evaluate, prompt, form = spec.evaluate, spec.train.prompt, spec.train.format
    decoding = evaluate.decoding()
    base = chosen_names(spec.train).model
    earlier_models = _earlier_models(spec, standing)
    # What an item is asked in, by any arm: one of which an arm could not make a prompt is an item of none.
    baseline = prompt.model_copy(update={"system": evaluate.baseline_system or prompt.system})
    prompts = dict.fromkeys((prompt, baseline, *(earlier.prompt for earlier in earlier_models.values())))
    items = Step(
        "items",
        select_items,
        EvalSet,
        inputs={"splits": "decontaminate"},
        params={
            "max_items": evaluate.max_items,
            "seed": evaluate.seed,
            "answer": prompt.answer,
            "choose": evaluate.choose,
            "prompts": tuple(prompts),
        },
        libraries=("pyarrow",),
    )
    steps = [within_limit(items, spec.table)]
    for arm in (arm for arm in PROMPTING_ARMS if arm in evaluate.arms):
        steps += _prompting_arm(arm, evaluate, prompt, form, decoding, model=base)
    if evaluate.endpoint is not None:
        steps += _endpoint_arm(evaluate, evaluate.endpoint, prompt, form)
    for arm in (arm for arm in CLASSIFIER_ARMS if arm in evaluate.arms and evaluate.routing_field):
        steps.append(
            Step(
                f"scores_{arm}",
                score_classifier,
                Scores,
                inputs={"items": "items", "splits": "decontaminate"},
                params={"arm": arm, "field": evaluate.routing_field, "seed": evaluate.seed},
                libraries=("scikit-learn", "numpy", "pyarrow"),
                kind="classifier",
            )
        )
    steps += _tuned_arm("tuned", evaluate, prompt, form, decoding, model=base, trained="train")
    for name, earlier in earlier_models.items():
        # It is asked as it is served: with the prompt and format it was trained on.
        steps += _tuned_arm(
            name, evaluate, earlier.prompt, earlier.trained.format, decoding,
            model=earlier.model, trained=earlier.trained,
        )  # fmt: skip
    checks = check_steps(spec, standing.champion, root)
    return [*steps, *checks, _gate(spec, standing, checks)]


def _earlier_models(spec: PipelineSpec, standing: Standing) -> dict[str, ChampionRef]:
    """The champion, and the anchor where a rule asks for it and it is another model."""
    champion, anchor = standing.champion, standing.anchor
    if champion is None:
        return {}
    apart = anchor is not None and asks_for_anchor(spec) and anchor.version != champion.version
    return {"champion": champion, **({"anchor": anchor} if apart and anchor is not None else {})}


def _prompting_arm(
    arm: str, evaluate: EvaluateSpec, prompt: PromptSpec, form: Format, decoding: DecodingSpec, *, model: Input
) -> list[Step]:
    shown = arm in ("few_shot", "retrieval")
    inputs: dict[str, Input] = {"items": "items", **({"splits": "decontaminate"} if shown else {})}
    libraries = ("pyarrow", "scikit-learn", "numpy") if arm == "retrieval" else ("pyarrow",)
    params = {
        "arm": arm,
        "prompt": prompt,
        "format": form,
        "baseline_system": evaluate.baseline_system,
        **({"n_examples": evaluate.few_shot_examples} if shown else {}),
        **({"seed": evaluate.seed} if arm == "few_shot" else {}),
    }
    return [
        Step(f"prompts_{arm}", build_prompts, PromptSet, inputs, params, libraries=libraries, kind="prompts"),
        _answers(arm, decoding, {"prompts": f"prompts_{arm}", "model": model}),
        _scores(arm, evaluate),
    ]


def _endpoint_arm(evaluate: EvaluateSpec, endpoint: EndpointSpec, prompt: PromptSpec, form: Format) -> list[Step]:
    """A model behind an address answers zero_shot's prompts. The same address and model are asked once."""
    params = {"arm": "zero_shot", "prompt": prompt, "format": form, "baseline_system": evaluate.baseline_system}
    answers = Step(
        "answers_endpoint", answer_by_endpoint, Predictions, {"prompts": "prompts_endpoint"},
        {"endpoint": endpoint, "max_new_tokens": evaluate.max_new_tokens}, libraries=("pyarrow",), resumable=True,
        reports=True, kind="answers",
    )  # fmt: skip
    prompts = Step(
        "prompts_endpoint", build_prompts, PromptSet, {"items": "items"}, params, libraries=("pyarrow",), kind="prompts"
    )
    return [prompts, answers, _scores("endpoint", evaluate)]


def _tuned_arm(
    arm: str,
    evaluate: EvaluateSpec,
    prompt: PromptSpec,
    form: Format,
    decoding: DecodingSpec,
    *,
    model: Input,
    trained: Input,
) -> list[Step]:
    params = {"arm": "tuned", "prompt": prompt, "format": form}
    return [
        Step(
            f"prompts_{arm}", build_prompts, PromptSet, {"items": "items"}, params,
            libraries=("pyarrow",), kind="prompts",
        ),
        _answers(arm, decoding, {"prompts": f"prompts_{arm}", "model": model, "trained": trained}),
        _scores(arm, evaluate),
    ]  # fmt: skip


def validation_arm(
    name: str, evaluate: EvaluateSpec, decoding: DecodingSpec, *, model: Input, trained: Input
) -> list[Step]:
    """The trained model answers `prompts_validation`, scored as on the test items; `flows/choice.py` compares these."""
    answers = _answers(name, decoding, {"prompts": "prompts_validation", "model": model, "trained": trained})
    scores = _scores("tuned", evaluate)
    inputs: dict[str, Input] = {"items": "validation_items", "predictions": answers.name}
    return [answers, replace(scores, name=f"scores_{name}", inputs=inputs)]


def _answers(arm: str, decoding: DecodingSpec, inputs: dict[str, Input]) -> Step:
    return Step(
        f"answers_{arm}",
        generate_answers,
        Predictions,
        inputs,
        {"decoding": decoding},
        libraries=("torch", "transformers", "peft", "bitsandbytes"),
        resumable=True,
        reports=True,
        kind="answers",
    )


def _scores(arm: str, evaluate: EvaluateSpec) -> Step:
    return Step(
        f"scores_{arm}",
        score_answers,
        Scores,
        {"items": "items", "predictions": f"answers_{arm}"},
        {"evaluate": evaluate, "arm": arm},
        libraries=("pyarrow", "sacrebleu", *_metric_libraries(evaluate)),
        kind="scores",
        also=_own_code(evaluate),
    )


def validation_step(spec: PipelineSpec) -> Step:
    """The metrics of answers that the training gave on its way; other metrics than before train nothing again."""
    evaluate = spec.evaluate
    params = {"evaluate": evaluate, "metrics": spec.train.validation_metrics, "answer": spec.train.prompt.answer}
    return Step(
        "validation_curves",
        score_validation,
        ValidationCurves,
        {"splits": "decontaminate", "trained": "train"},
        params,
        libraries=("pyarrow", "sacrebleu", *_metric_libraries(evaluate)),
        also=_own_code(evaluate),
    )


def _metric_libraries(evaluate: EvaluateSpec) -> tuple[str, ...]:
    """Distributions that decide the values of declared metrics."""
    needs = {
        "json_schema": ("jsonschema", "orjson"),
        "sql": ("duckdb",),
        "rouge": ("rouge-score",),
        "pii": ("phonenumbers", "python-stdnum"),
    }
    return tuple(name for metric in evaluate.metrics for name in needs.get(metric.uses, ()))


def _own_code(evaluate: EvaluateSpec) -> dict[str, str]:
    """Digest of the code behind each of the user's own metrics in Python."""
    names = [metric.name for metric in evaluate.metrics if metric.uses == "entry_point"]
    return {f"entry_point_{name}": entry_point_digest(name) for name in names}


def _gate(spec: PipelineSpec, standing: Standing, checks: list[Step]) -> Step:
    earlier = _earlier_models(spec, standing)
    baselines = tuple(f"scores_{arm}" for arm in (*PROMPTING_ARMS, "endpoint") if arm in spec.evaluate.arms)
    inputs: dict[str, Input | tuple[Input, ...]] = {"candidate": "scores_tuned", "baselines": baselines}
    inputs |= {arm: f"scores_{arm}" for arm in earlier}
    inputs["checks"] = tuple(step.name for step in checks if step.returns is CheckEvidence)
    inputs |= suite_inputs(spec)
    if spec.gates.cluster_by is not None:
        inputs["items"] = "items"
    anchor = standing.anchor if standing.champion is not None else None
    judged = spec.gates.judged_metrics()
    params: dict[str, object] = {
        "gates": spec.gates,
        "champion_version": standing.champion.version if standing.champion else None,
        "anchor_version": anchor.version if anchor else None,
        "traits": tuple(traits for traits in spec.evaluate.traits() if traits.name in judged),
        **({} if "champion" in earlier else {"champion": None}),
    }
    late = {"spent": Late(("items", "train"), standing.spent)}
    if standing.live is not None:
        live = partial(standing.live_for, spec.train.prompt, spec.evaluate.max_new_tokens)
        late["live"] = Late((chosen_names(spec.train).model, "train"), live)
    also = {} if standing.live is None else {"feedback": standing.feedback_digest}
    libraries = ("numpy", "scipy", "pyarrow")
    return Step("gate", decide, GateDecision, inputs, params, late=late, also=also, libraries=libraries)


@flow(name="assess")
def assess(pipeline: str, config: str = "pipelines.yaml", run_id: str | None = None) -> None:
    """Answer the held-out items by every arm, score the answers and decide."""
    with attach(pipeline, config, run_id) as session:
        run_stage(session, "assess")
