"""Answer the held-out items in batches until they show that the candidate can hardly pass, or to the end.

A step of `flows/assess.py` if `gates.interim` is declared. The other arms have answered all items by then: their
answers are shared between runs. `tasks/assess/gate.py` looks, this file only generates and stops.
"""

import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from schemas.artifacts import (
    CheckEvidence,
    EvalSet,
    InterimAnswers,
    ModelRef,
    Predictions,
    PromptSet,
    Scores,
    TrainedRef,
)
from schemas.evaluation import DecodingSpec, EvaluateSpec
from schemas.gates import GatesSpec
from schemas.verdicts import InterimLook, InterimUse
from tasks.assess.gate import NO_CONTEXT, GateContext, arms_of, look
from tasks.assess.score import score_answers
from tasks.model.answer_engine import Answer
from tasks.model.generate import (
    IN_THIS_PROCESS,
    AnswerTask,
    BatchAnswering,
    answer_in_groups,
    write_answers,
)
from tasks.progress import Progress, silent
from tasks.step import BY_RUNNER, as_step
from tasks.tickets.draw import look_ends


@as_step(
    "interim",
    libraries=("torch", "transformers", "peft", "bitsandbytes", "pyarrow", "sacrebleu", "numpy", "scipy"),
    context=("answering",),
    heavy=True,
    memory_gb=2.0,
)
def answer_until_futile(
    out: Path,
    *,
    items: EvalSet,
    prompts: PromptSet,
    model: ModelRef,
    trained: TrainedRef,
    decoding: DecodingSpec,
    evaluate: EvaluateSpec,
    gates: GatesSpec,
    champion: Scores | None,
    baselines: tuple[Scores, ...],
    anchor: Scores | None = None,
    context: GateContext = NO_CONTEXT,
    floor: CheckEvidence | None = None,
    scratch: Path = BY_RUNNER,
    answering: BatchAnswering = IN_THIS_PROCESS,
    progress: Progress = silent,
) -> InterimAnswers:
    """Write `predictions.parquet` of the items that were answered.

    Finished batches are kept in `scratch`, and a look only depends on the answers up to it: a killed run continues at
    its batch and stops where it would have stopped.

    Args:
        evaluate: What the metrics of the rules need.
        gates: What the rules need: whatever else is in it makes a new key, so that all items are answered again.
        champion: Its scores on all items, as those of the other arms; None without a champion.
        floor: As `score_answers`.

    Raises:
        DataError, TrainingError: as `generate_answers`.
        GateError: as `score_answers`.
    """
    task = AnswerTask(prompts, model, decoding, trained)
    looks: list[InterimLook] = []
    answers: list[Answer] = []
    batches = gates.interim.batches if gates.interim is not None else 1
    *due, _ = look_ends(items.n_items, batches=batches, batch_size=decoding.batch_size)
    groups = answer_in_groups(task, scratch=scratch, answering=answering, progress=progress, in_order=True)
    with closing(groups):
        for answers in groups:
            if len(answers) not in due:
                continue
            scores = _score(answers, items, evaluate, scratch, floor)
            arms = arms_of(
                scores, champion=champion, anchor=anchor, baselines=baselines, context=context, as_candidate=True
            )
            seen = look(arms, gates, items)
            if seen is not None:
                looks.append(seen)
                if seen.stopped:
                    break
    predictions = write_answers(answers, out)
    use = InterimUse(n_items=predictions.n_items, n_planned=items.n_items, looks=tuple(looks))
    return InterimAnswers(root=out, n_new_tokens=predictions.n_new_tokens, use=use)


@as_step("answers", libraries=("pyarrow",))
def take_answers(out: Path, *, seen: InterimAnswers) -> Predictions:
    """Write the answers of a run that stopped as those of its candidate."""
    shutil.copyfile(seen.root / "predictions.parquet", out / "predictions.parquet")
    use = seen.use
    return Predictions(root=out, n_items=use.n_items, n_new_tokens=seen.n_new_tokens, n_planned=use.n_planned)


def _score(
    answers: Sequence[Answer], items: EvalSet, evaluate: EvaluateSpec, scratch: Path, floor: CheckEvidence | None
) -> Scores:
    folder = scratch / f"look-{len(answers):06}"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "answers").mkdir(parents=True)
    (folder / "scores").mkdir()
    so_far = write_answers(answers, folder / "answers").model_copy(update={"n_planned": items.n_items})
    return score_answers(
        folder / "scores", items=items, predictions=so_far, evaluate=evaluate, arm="tuned", floor=floor
    )
