"""A candidate that got HOLD, and may be judged again with more held-out items (`gates.looks.at`).

Found in ledger and store before a run begins; changes nothing. `flows/build.py` gives its weights to the graph in place
of a training, `tasks/curate/unseen.py` takes care that it learned nothing of the further items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from flows.graph.keys import canonical, code_digests
from flows.graph.store import Store
from flows.ledger.ledger import Ledger
from flows.ledger.rows import CandidateRow, RunRow
from flows.registry.state import RegistryState, recipe_of
from schemas.artifacts import ChampionRef, DatasetRef, GateDecision, Predictions, PromptSet, Splits
from schemas.errors import ConfigError, GateError
from schemas.pipeline import PipelineSpec
from schemas.verdicts import SeenItems, Terms
from tasks.assess.looks import number_of
from tasks.model.generate import generate_answers

LEARNED = "learned"
"""Step of a resumed run: the tickets that its candidate learned from, under the key of then."""


@dataclass(frozen=True)
class HeldCandidate:
    """The candidate, what it learned from, and the looks that are left."""

    run_id: str
    """The run that is resumed."""
    ref: ChampionRef
    dataset: DatasetRef | None
    """Its examples; None if it was trained elsewhere."""
    learned: Splits
    """The tickets that its examples were made of; of one that was trained elsewhere, those of its last look."""
    before: SeenItems
    """The items of its last look, which the next one includes."""
    n_before: int
    sizes: tuple[int, ...]
    """Items of the looks that are left, rising."""
    answered: Mapping[str, tuple[PromptSet, Predictions]] = field(default_factory=dict)
    """Arm -> its prompts and answers at the last look: no prompt is answered twice."""
    is_champion: bool = False
    """A run that judged it again was interrupted between its promotion and its end."""


def find_held(spec: PipelineSpec, run: RunRow, ledger: Ledger, store: Store, state: RegistryState) -> HeldCandidate:
    """Return the candidate of a run that ended in HOLD.

    Args:
        spec: The pipeline as it is declared now.
        state: Of its registered model.

    Raises:
        GateError: TG0625, it cannot be judged again; TG0620, the champion is another than the one it was compared with.
        ConfigError: TG0159, its weights, or what it learned from, are no longer in the store.
    """
    steps = {step.step: step for step in ledger.steps(run.run_id) if step.key}
    keys = {name: step.key for name, step in steps.items()}
    decision = store.whole("gate", keys.get("gate"), GateDecision)
    _check_run(spec, run, decision)
    if decision is None:
        raise _gone(run, "decision")
    row = next(
        (row for row in ledger.candidates(run.model_name) if row.ref.trained.digest == steps["train"].digest), None
    )
    if row is None:
        raise _unfit(run, "recorded no candidate", hint=f"`tunegate show {run.run_id}` shows how far it got")
    _check_candidate(spec, run, row, ledger)
    champion = None if state.champion is None else state.champion.version
    is_champion = champion == row.ref.version and row.verdict == "PROMOTE"
    if champion != decision.champion_version and not is_champion:
        was, now = (f"v{each}" if each else "none" for each in (decision.champion_version, champion))
        raise GateError(
            f"the champion is {now}, and run {run.run_id} compared its candidate with {was}: its looks are at that "
            "comparison",
            code="TG0620", where=run.run_id, hint=f"`tunegate run {spec.name}` trains and judges a new candidate",
        )  # fmt: skip
    sizes, last = _looks_left(spec, run, row, state)
    dataset = store.whole("encode", keys.get("chosen_dataset") or keys.get("encode"), DatasetRef)
    learned = learned_by(keys, store)
    is_whole = all(part.root.is_dir() for part in (row.ref.model, row.ref.trained))
    if (dataset is None and row.ref.trained.external is None) or learned is None or not is_whole:
        raise _gone(run, "weights, its examples or the tickets that they were made of")
    return HeldCandidate(
        run_id=run.run_id, ref=row.ref, dataset=dataset, learned=learned,
        before=ledger.items_of(last), n_before=len(state.held_out()[last]), sizes=sizes,
        answered=_answered(spec, row.ref, _keys_of_look(run, last, row, ledger), store, state),
        is_champion=is_champion,
    )  # fmt: skip


def newest_held(spec: PipelineSpec, ledger: Ledger, store: Store, state: RegistryState) -> HeldCandidate | None:
    """Return the candidate of the pipeline's last verdict if that is HOLD and a look is left; None if not."""
    judged = (row for row in ledger.runs_with_step("gate", pipeline=spec.name) if row.verdict and row.as_of is None)
    last = next(judged, None)
    if last is None or last.verdict != "HOLD" or not spec.gates.looks.at:
        return None
    resumed = next(iter(ledger.runs_with_step(LEARNED, pipeline=spec.name)), None)
    if resumed is not None and resumed.seq > last.seq and resumed.status == "FAILED":
        return None  # it would fail again, and keep every later tick from training
    try:
        return find_held(spec, last, ledger, store, state)
    except (ConfigError, GateError):
        return None


def learned_by(keys: dict[str, str], store: Store) -> Splits | None:
    """Return the tickets that the candidate of a run learned from; None if they are no longer in the store.

    Args:
        keys: Step -> key of its result, of that run.
    """
    key = keys.get(LEARNED) or keys.get("passages") or keys.get("decontaminate")
    return store.whole("decontaminate", key, Splits) or store.whole("passages", key, Splits)


def _check_run(spec: PipelineSpec, run: RunRow, decision: GateDecision | None) -> None:
    if run.pipeline != spec.name:
        raise _unfit(run, f"is of {run.pipeline}, not of {spec.name}", hint="name a run of this pipeline")
    if decision is not None and run.verdict == "HOLD" and decision.verdict == "PROMOTE":
        hint = f"`tunegate model approve {run.run_id} --by NAME` lets it in"
        raise _unfit(run, "got PROMOTE from its gate; a person decides about its candidate", hint=hint)
    if run.verdict != "HOLD":
        ended = run.verdict or run.status
        raise _unfit(run, f"ended with {ended}; only a candidate that got HOLD is judged again", hint="`tunegate runs`")
    if run.as_of is not None or run.given:
        how = f"--as-of {run.as_of}" if run.as_of is not None else f"--set {' '.join(run.given)}"
        raise _unfit(run, f"was run with {how}", hint=f"`tunegate run {spec.name}` judges by the file as it is")


def _check_candidate(spec: PipelineSpec, run: RunRow, row: CandidateRow, ledger: Ledger) -> None:
    version, name = row.ref.version, row.ref.name
    last = ledger.judging_runs(name, version)[-1]
    # A run that was killed after it recorded its verdict, and before it acted on it, is repeated.
    if row.verdict != "HOLD" and ledger.run(last).verdict is not None:
        hint = f"`tunegate show {last}`"
        raise _unfit(run, f"held v{version} of {name}, which run {last} judged again: {row.verdict}", hint=hint)
    if row.ref.trained.started_from is not None:
        raise _unfit(
            run, "held a candidate that continues a champion: new held-out tickets are not compared with what that one "
            "learned",
            hint=f"`tunegate run {spec.name}` trains a new one; gates.looks.at needs train.start: base",
        )  # fmt: skip
    marks = ledger.marked(name, version)
    if marks:
        hint = f"`tunegate run {spec.name}` trains without those tickets"
        raise _unfit(run, f"held a candidate that cannot become champion: {marks[-1].summary}", hint=hint)
    same = orjson.loads(row.evidence).get("recipe") == recipe_of(spec)
    if name != spec.registry.name or not same or row.ref.max_new_tokens != spec.evaluate.max_new_tokens:
        raise _unfit(
            run, "held a candidate that the file does not declare any more: train, curate, register.name or "
            "evaluate.max_new_tokens has changed",
            hint=f"undo that, or `tunegate run {spec.name}` trains a new one",
        )  # fmt: skip


def _looks_left(
    spec: PipelineSpec, run: RunRow, row: CandidateRow, state: RegistryState
) -> tuple[tuple[int, ...], str]:
    """Return the items of each look that is left, and the digest of the last held-out set."""
    looks, at = state.looks_at(row.ref.trained.digest), spec.gates.looks.at
    declared = {() if each.terms is None else each.terms.at for each in looks}
    if not at:
        raise _unfit(
            run,
            "cannot be resumed: the file declares no gates.looks.at, and looks are declared before the first verdict",
            hint=f"`tunegate run {spec.name}` judges its next candidate by the looks in the file",
        )  # fmt: skip
    if declared != {at}:
        was = next((list(each) for each in declared if each != at), [])
        raise _unfit(
            run, f"was judged with gates.looks.at {was}, and the file declares {list(at)}: looks are declared before "
            "the first verdict",
            hint=f"`tunegate run {spec.name}` judges its next candidate by the looks in the file",
        )  # fmt: skip
    sets = state.held_out()
    reached = _reached([len(sets.get(each.held_out, ())) for each in looks], looks[-1].terms)
    if reached >= len(at):
        raise _unfit(
            run, f"held a candidate that has had its looks at {list(at)} held-out items",
            hint=f"only another candidate can pass: `tunegate run {spec.name}`",
        )  # fmt: skip
    return at[reached:], looks[-1].held_out


def _keys_of_look(run: RunRow, held_out: str, row: CandidateRow, ledger: Ledger) -> dict[str, str]:
    """Return the keys of the newest run that judged the candidate on these items."""
    for version_run in (*reversed(ledger.judging_runs(row.ref.name, row.ref.version)), run.run_id):
        steps = {step.step: step for step in ledger.steps(version_run) if step.key}
        if "items" in steps and steps["items"].digest == held_out:
            return {name: step.key for name, step in steps.items()}
    return {}


def _answered(
    spec: PipelineSpec, ref: ChampionRef, keys: Mapping[str, str], store: Store, state: RegistryState
) -> dict[str, tuple[PromptSet, Predictions]]:
    """Return what the arms answered at a look, as far as they would answer the same today."""
    found, code = dict[str, tuple[PromptSet, Predictions]](), code_digests(generate_answers)
    earlier = {"tuned": ref, "champion": state.champion, "anchor": state.anchor}
    for step, key in keys.items():
        kind, _, arm = step.partition("_")
        parts = store.parts("answers", key) if kind == "answers" else None
        prompts = store.whole("prompts", keys.get(f"prompts_{arm}"), PromptSet)
        answers = store.whole("answers", key, Predictions)
        if parts is None or prompts is None or answers is None or parts.code != code:
            continue
        by = earlier.get(arm)
        decoding = spec.evaluate.decoding()
        if by is not None:
            decoding = decoding.model_copy(update={"max_new_tokens": by.max_new_tokens})
        wanted = (ref if by is None else by).model.digest, None if by is None else by.trained.digest
        same = (parts.inputs.get("model"), parts.inputs.get("trained")) == wanted
        if same and parts.params.get("decoding") == canonical(decoding, where=step):
            found[arm] = prompts, answers
    return found


def _reached(sizes: Sequence[int], terms: Terms | None) -> int:
    """Return how many of the declared looks are over; one may have been passed over."""
    at = () if terms is None else terms.at
    return max((number_of(size, at=at, before=place) for place, size in enumerate(sizes)), default=0)


def _unfit(run: RunRow, why: str, *, hint: str) -> GateError:
    return GateError(f"run {run.run_id} {why}", code="TG0625", where=run.run_id, hint=hint)


def _gone(run: RunRow, what: str) -> ConfigError:
    return ConfigError(
        f"the candidate of run {run.run_id} cannot be judged again: its {what} are no longer in the store",
        code="TG0159", where=run.run_id, hint=f"`tunegate run {run.pipeline}` trains a new one",
    )  # fmt: skip
