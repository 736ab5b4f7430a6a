"""Several trainings, each weighed on the validation items, and the one that goes on: as steps of the engine.

Per training: its base model and token ids where they differ, `train_X`, `answers_X`, `scores_X`, and `X`, which weighs
it. Then `choice`, and under the names that a single training has (`train`, and `flows/chosen.py`) the chosen one's
results, as they are. A rung starts only while none before it has met the target; a trial of Optuna is suggested from
the results before it. Each training has the key that it would have alone, so that nothing is trained twice.
Called by `flows/finetune.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from flows.assess import validation_arm
from flows.chosen import (
    BASE,
    TOKENS,
    Candidate,
    Changes,
    base_models,
    base_of,
    candidates,
    chosen_names,
    dataset_name,
    model_name,
    varies,
)
from flows.engine.keys import code_digests, digest_of
from flows.engine.step import Condition, Late, Step
from flows.quarantine import within_limit
from schemas.artifacts import Artifact, DatasetRef, EvalSet, ModelRef, PromptSet
from schemas.choice import LOSS, LadderSpec, OptunaSweep, TargetSpec
from schemas.evaluation import EvaluateSpec
from schemas.metrics import MetricTraits
from schemas.pipeline import PipelineSpec
from schemas.trials import ChoiceRef, TrialRef
from tasks.assess.choose import choose_training
from tasks.assess.items import select_validation_items
from tasks.assess.prompts import build_prompts
from tasks.assess.trial import weigh_training
from tasks.model.base_model import check_same_tokenizer, fingerprint_base_model
from tasks.train.sweep import suggest

DIVERGED, NO_LIKELIHOOD = "TG0401", "TG0420"
"""What makes a training fail the same way each time: it is out, the others go on."""


def choice_steps(spec: PipelineSpec, *, single: Sequence[Step], root: Path, trunks: Path | None = None) -> list[Step]:
    """The steps in order.

    Args:
        single: The steps of the pipeline as if it had one training. `base_model`, `encode` and `train` of each
            candidate are copies of these; what else there is follows the chosen one.
        root: Folder of pipelines.yaml.
        trunks: Where the trainings share what frozen layers computed; None for no sharing.
    """
    return _Builder(spec, {step.name: step for step in single}, root, trunks).steps()


@dataclass(frozen=True)
class _Builder:
    spec: PipelineSpec
    single: dict[str, Step]
    root: Path
    trunks: Path | None

    @cached_property
    def all(self) -> tuple[Candidate, ...]:
        return candidates(self.spec.train)

    @property
    def choice(self) -> Any:
        return self.spec.train.choice

    @property
    def target(self) -> TargetSpec | None:
        return self.choice.target if isinstance(self.choice, LadderSpec) else None

    @property
    def traits(self) -> MetricTraits:
        metric = self.target.metric if self.target is not None else self.choice.metric
        return next(traits for traits in self.spec.evaluate.traits() if traits.name == metric)

    def steps(self) -> list[Step]:
        steps = self._questions()
        declared: set[str] = set()
        if isinstance(self.choice, OptunaSweep):  # any trial may take any of them
            steps += [self._model(key) for key in base_models(self.spec.train)]
            declared = {step.name for step in steps}
        for candidate in self.all:
            new = [step for step in self._candidate(candidate) if step.name not in declared]
            declared |= {step.name for step in new}
            steps += new
        candidates_own = ("base_model", "encode", "train")
        return [*steps, *self._chosen(), *(step for name, step in self.single.items() if name not in candidates_own)]

    def _questions(self) -> list[Step]:
        """The validation items and their prompts, before anything is trained."""
        evaluate, train = self.spec.evaluate, self.spec.train
        items = Step(
            "validation_items",
            select_validation_items,
            EvalSet,
            inputs={"splits": "decontaminate"},
            params={
                "max_items": self.choice.max_items,
                "seed": evaluate.seed,
                "answer": train.prompt.answer,
                "prompts": (train.prompt,),
            },
            libraries=("pyarrow",),
        )
        prompts = Step(
            "prompts_validation",
            build_prompts,
            PromptSet,
            {"items": items.name},
            {"arm": "tuned", "prompt": train.prompt, "format": train.format},
            libraries=("pyarrow",),
            kind="prompts",
        )
        return [within_limit(items, self.spec.table), prompts]

    def _candidate(self, candidate: Candidate) -> list[Step]:
        train, name = self.spec.train, candidate.name
        model, dataset = model_name(train, candidate), dataset_name(train, candidate)
        steps = [self._model_of(candidate, model)]
        first = model_name(train, self.all[0])
        if isinstance(self.choice, LadderSpec) and self.traits.name == LOSS and model != first:
            check = Step(f"tokenizer_{name}", check_same_tokenizer, Artifact, {"model": model, "first": first})
            steps.append(replace(check, kind="same_tokenizer"))
        encode, tune = self.single["encode"], self.single["train"]
        steps.append(
            replace(
                encode,
                name=dataset,
                kind=encode.folder,
                inputs={**encode.inputs, "model": model},
                **self._by_changes(candidate, "encoding", lambda changes: train.training(changes).encoding(), encode)
                if dataset != encode.name
                else {},
            )
        )
        steps.append(
            replace(
                tune,
                name=f"train_{name}",
                kind=tune.folder,
                inputs={**tune.inputs, "dataset": dataset, "model": model},
                context={**tune.context, "trunks": self.trunks},
                tolerates=(DIVERGED,),
                **self._by_changes(candidate, "spec", train.training, tune),
            )
        )
        evaluate, decoding = _judged_by(self.spec.evaluate, self.traits.name)
        answers, scores = validation_arm(name, evaluate, decoding, model=model, trained=f"train_{name}")
        steps += [replace(answers, tolerates=(NO_LIKELIHOOD,)), scores, self._weigh(candidate, dataset)]
        wanted = self._wanted(candidate)
        return [replace(step, only_if=wanted) for step in steps] if wanted is not None else steps

    def _model_of(self, candidate: Candidate, name: str) -> Step:
        if candidate.changes is not None:
            return self._model(base_of(self.spec.train, candidate.changes))
        if name == "base_model":
            return self.single["base_model"]
        models = base_models(self.spec.train)

        def pick(*results: Any) -> Any:
            earlier = results[: len(results) - len(models)][::-1]  # the last one first: it is what a plan waits for
            return results[len(earlier) + [*models].index(base_of(self.spec.train, self._suggested(earlier)))]

        return replace(
            self.single["base_model"],
            name=name,
            kind=self.single["base_model"].folder,
            pick=Late((*self._before(candidate)[::-1], *models.values()), pick),
        )

    def _model(self, key: tuple[str, bool]) -> Step:
        """The step of one base model."""
        uri, allow_download = key
        single = self.single["base_model"]
        name = base_models(self.spec.train)[key]
        if name == single.name:
            return single
        return replace(
            single,
            name=name,
            kind=single.folder,
            params={"uri": uri, "allow_download": allow_download},
            also={"files": fingerprint_base_model(uri, root=self.root)},
        )

    def _weigh(self, candidate: Candidate, dataset: str) -> Step:
        name = candidate.name
        step = Step(
            name,
            weigh_training,
            TrialRef,
            inputs={"trained": f"train_{name}", "dataset": dataset, "scores": f"scores_{name}"},
            params={"name": name, "number": candidate.number, "traits": self.traits},
            libraries=("numpy", "scipy", "pyarrow"),
            kind="trial",
        )
        step = replace(step, **self._by_changes(candidate, "changes", dict, step))
        if self.target is None:
            return step
        return replace(
            step,
            inputs={**step.inputs, "earlier": self._before(candidate)},
            params={**step.params, "target": self.target, "n_rungs": len(self.all)},
        )

    def _by_changes(self, candidate: Candidate, parameter: str, of: Any, step: Step) -> dict[str, Any]:
        """The step's fields with a parameter that follows from the candidate's changes, at once or late."""
        if candidate.changes is not None:
            return {"params": {**step.params, parameter: of(candidate.changes)}}
        params = {name: value for name, value in step.params.items() if name != parameter}

        def compute(*results: TrialRef | None) -> Any:
            return of(self._suggested(results))

        return {"params": params, "late": {**step.late, parameter: Late(self._before(candidate), compute)}}

    def _suggested(self, results: Sequence[TrialRef | None]) -> Changes:
        values = [result.row.value if result is not None else None for result in results]
        return suggest(self.choice, values, higher_is_better=self.traits.higher_is_better)

    def _before(self, candidate: Candidate) -> tuple[str, ...]:
        return tuple(each.name for each in self.all[: candidate.number - 1])

    def _wanted(self, candidate: Candidate) -> Condition | None:
        """A rung is wanted while none before it has met the target."""
        before = self._before(candidate)
        if self.target is None or not before:
            return None
        return Condition(before, _all_missed, f"{before[-1]} misses its target")

    def _chosen(self) -> list[Step]:
        names = tuple(candidate.name for candidate in self.all)
        known = tuple(dict(each.changes) for each in self.all if each.changes is not None)
        choice = Step(
            "choice",
            choose_training,
            ChoiceRef,
            inputs={"trials": names},
            params={
                "names": names,
                "declared": known if len(known) == len(names) else (),
                "kind": "ladder" if self.target is not None else self.choice.kind,
                "traits": self.traits,
            },
            # What Optuna suggests decides the run as well, though no step runs it.
            also={"suggest": digest_of(code_digests(suggest))} if isinstance(self.choice, OptunaSweep) else {},
            libraries=("numpy", "scipy", "pyarrow", *(("optuna",) if isinstance(self.choice, OptunaSweep) else ())),
        )
        steps = [choice, self._pick("train", [f"train_{name}" for name in names], self.single["train"])]
        chosen, train = chosen_names(self.spec.train), self.spec.train
        if varies(train, TOKENS):
            datasets = [dataset_name(train, each) for each in self.all]
            steps.append(self._pick(chosen.dataset, datasets, replace(self.single["encode"], returns=DatasetRef)))
        if varies(train, BASE):
            models = [model_name(train, each) for each in self.all]
            steps.append(self._pick(chosen.model, models, replace(self.single["base_model"], returns=ModelRef)))
        return steps

    def _pick(self, name: str, of: Sequence[str], like: Step) -> Step:
        """The result that belongs to the winner, under a name that later stages know."""
        order = {candidate.name: place for place, candidate in enumerate(self.all)}
        distinct = list(dict.fromkeys(of))

        def pick(choice: ChoiceRef, *results: Artifact | None) -> Artifact | None:
            return results[distinct.index(of[order[choice.winner]])]

        bare = replace(like, inputs={}, params={}, late={}, also={}, context={})
        return replace(bare, name=name, kind=like.folder, pick=Late(("choice", *distinct), pick))


def _all_missed(*rungs: TrialRef | None) -> bool:
    return not any(rung is not None and rung.row.met for rung in rungs)


def _judged_by(evaluate: EvaluateSpec, metric: str) -> tuple[EvaluateSpec, Any]:
    """What the choice needs of scoring: its own metric; and one token of answer where only the loss counts."""
    metrics = tuple(each for each in evaluate.metrics if each.traits().name == metric)
    decoding = evaluate.decoding()
    if metric == LOSS:
        decoding = decoding.model_copy(update={"max_new_tokens": 1})
    return evaluate.model_copy(update={"metrics": metrics}), decoding
