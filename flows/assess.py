"""Sub-flow three: candidate, champion and baselines answer the same held-out items; the gate gives a verdict."""

from __future__ import annotations

from prefect import flow

from flows.engine.step import Input, Step
from flows.session import attach
from flows.steps import run_stage
from schemas.artifacts import ChampionRef, EvalSet, GateDecision, Predictions, PromptSet, Scores
from schemas.evaluation import DecodingSpec, EvaluateSpec
from schemas.pipeline import PipelineSpec
from schemas.training import Format, PromptSpec
from tasks.assess.baselines import score_classifier
from tasks.assess.gate import decide
from tasks.assess.items import select_items
from tasks.assess.prompts import build_prompts
from tasks.assess.score import score_answers
from tasks.model.generate import generate_answers

PROMPTING_ARMS = ("zero_shot", "few_shot")
CLASSIFIER_ARMS = ("majority", "tfidf")


def assess_steps(spec: PipelineSpec, *, champion: ChampionRef | None) -> list[Step]:
    """The steps in order. They take `decontaminate`, `base_model` and `train`, and the champion of this moment.

    Answers are keyed by model, prompts and decoding, so base and champion answer each held-out set once.
    """
    evaluate, prompt, form = spec.evaluate, spec.train.prompt, spec.train.format
    decoding = evaluate.decoding()
    steps = [
        Step(
            "items",
            select_items,
            EvalSet,
            inputs={"splits": "decontaminate"},
            params={"max_items": evaluate.max_items, "seed": evaluate.seed, "answer": prompt.answer},
            libraries=("pyarrow",),
        )
    ]
    for arm in (arm for arm in PROMPTING_ARMS if arm in evaluate.arms):
        steps += _prompting_arm(arm, evaluate, prompt, form, decoding)
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
    steps += _tuned_arm("tuned", evaluate, prompt, form, decoding, model="base_model", trained="train")
    if champion is not None:
        # The champion is asked as it is served: with the prompt and format it was trained on.
        steps += _tuned_arm(
            "champion", evaluate, champion.prompt, champion.trained.format, decoding,
            model=champion.model, trained=champion.trained,
        )  # fmt: skip
    return [*steps, _gate(spec, champion)]


def _prompting_arm(
    arm: str, evaluate: EvaluateSpec, prompt: PromptSpec, form: Format, decoding: DecodingSpec
) -> list[Step]:
    few = arm == "few_shot"
    inputs: dict[str, Input] = {"items": "items", **({"splits": "decontaminate"} if few else {})}
    params = {
        "arm": arm,
        "prompt": prompt,
        "format": form,
        "baseline_system": evaluate.baseline_system,
        **({"n_examples": evaluate.few_shot_examples, "seed": evaluate.seed} if few else {}),
    }
    return [
        Step(f"prompts_{arm}", build_prompts, PromptSet, inputs, params, libraries=("pyarrow",), kind="prompts"),
        _answers(arm, decoding, {"prompts": f"prompts_{arm}", "model": "base_model"}),
        _scores(arm, evaluate),
    ]


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
        libraries=("pyarrow", "sacrebleu"),
        kind="scores",
    )


def _gate(spec: PipelineSpec, champion: ChampionRef | None) -> Step:
    baselines = tuple(f"scores_{arm}" for arm in PROMPTING_ARMS if arm in spec.evaluate.arms)
    inputs: dict[str, Input | tuple[Input, ...]] = {"candidate": "scores_tuned", "baselines": baselines}
    params: dict[str, object] = {"gates": spec.gates, "champion_version": champion.version if champion else None}
    if champion is None:
        params["champion"] = None
    else:
        inputs["champion"] = "scores_champion"
    return Step("gate", decide, GateDecision, inputs, params, libraries=("numpy", "scipy", "pyarrow"))


@flow(name="assess")
def assess(pipeline: str, config: str = "pipelines.yaml", run_id: str | None = None) -> None:
    """Answer the held-out items by every arm, score the answers and decide."""
    with attach(pipeline, config, run_id) as session:
        run_stage(session, "assess")
