"""`tunegate gate check NAME`: a verdict over files of results, recorded in the ledger as that of a run is.

The champion's results are kept, so that the next candidate needs only its own file. Looks at a candidate and candidates
per item are counted as for pipelines. Texts are not kept, only hashes of them (`tasks/results/stored.py`).

Crash safe: each check holds the name's lock and repeats what a killed one left. Until its verdict is recorded nothing
has been judged; after that the same candidate on the same items is the same look.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from flows.context.outcome import Outcome, held, outcome_of
from flows.context.run_context import new_run_id
from flows.graph.keys import digest_of
from flows.graph.store import Obtained, Store
from flows.ledger.ledger import Ledger
from flows.ledger.open import open_ledger, open_store
from flows.ledger.promotions import NEVER, Waits
from flows.ledger.rows import MOVES, RunVerdict
from flows.registry.state import RegistryState, ids_of, record_held_out, terms_of_gates
from flows.views.champion_files import check_champion
from flows.views.gate_check import (
    CheckedFiles,
    GateTerms,
    PairedFiles,
    check_baselines,
    default_terms,
    mlflow_of,
    read_arms,
    traits_of_files,
    with_clusters,
)
from flows.workspace.disk import named_disk_errors
from flows.workspace.settings import Settings
from flows.workspace.temporary import temporary_files_below
from schemas.artifacts import Artifact, CheckedModel, CheckedRef, CheckedResults, EvalSet, GateDecision
from schemas.diagnostics import ConfigErrors
from schemas.errors import ConfigError, StorageError, TunegateError
from schemas.load import load_file
from schemas.metrics import MetricTraits
from schemas.pipeline import PipelineSpec
from tasks.assess.decision import surpassed, write_decision
from tasks.assess.gate import GateContext
from tasks.results.pair import PairFault, faults_of
from tasks.results.rows import ResultFile
from tasks.results.scores import measured, values_of
from tasks.results.stored import COLUMN, ROWS, changed_items, hashed, item_keys, read_stored, to_lines
from tasks.storage.files import write_atomic, write_json

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
MODEL, RESULTS, CHAMPION_MODEL, CHAMPION_RESULTS = "checked_model", "results", "champion_model", "champion_results"
"""Steps in the ledger; `items` and `gate` are those of runs."""
A = TypeVar("A", bound=Artifact)


@dataclass(frozen=True)
class CheckRequest:
    """What to judge, and how; the arguments of `flows.views.gate_check.check_files`."""

    name: str
    """Of the versions in the ledger."""
    candidate: str
    champion: str | None = None
    """Results of the champion on other items than those that are kept; of the model in service for the first check."""
    anchor: str | None = None
    baselines: Mapping[str, str] = field(default_factory=dict)
    terms: GateTerms | None = None
    metric: str | None = None
    lower_is_better: Sequence[str] = ()
    id_column: str | None = None
    version_of: str = ""
    """What the candidate's results are of; the file itself if empty."""
    config: Path | None = None
    """File of pipelines, whose names are not free for results."""
    waits: Waits = NEVER
    actor: str = "command line"
    wait_s: float = 0.0


def check_with_ledger(request: CheckRequest, settings: Settings) -> CheckedFiles | Outcome:
    """Judge the candidate against the champion of the name, and record and carry out the verdict.

    Returns:
        The outcome alone if the candidate is champion already.

    Raises:
        ConfigError: TG0103, the name cannot be one, or as in `check_files`; TG0159, there is no champion and no file of
            one, or the name has models that were trained here, or is that of a pipeline.
        DataError, ServiceError: As in `read_arms`.
        StorageError: TG0510 or TG0549, the champion's results are not those that were kept; TG0580 or TG0581, the
            ledger was altered.
        LockedError: TG0520, another check of the name runs for longer than `wait_s`.
    """
    if not NAME.fullmatch(request.name):
        raise ConfigError(
            f"{request.name!r} is no name: letters, digits, - and _, at most 63", code="TG0103", where="NAME",
            hint="such as vendor-replies",
        )  # fmt: skip
    check_baselines(request.baselines)
    given = {"tuned": request.candidate, "champion": request.champion, "anchor": request.anchor, **request.baselines}
    files = read_arms(given, id_column=request.id_column, mlflow=mlflow_of(request.terms, settings))
    ledger, run_id, home = open_ledger(settings), new_run_id(), settings.home
    lock = ledger.pipeline_lock(request.name, wait_s=request.wait_s, run_id=run_id)
    with named_disk_errors(home), lock, temporary_files_below(home, make=True):
        ledger.check()
        ledger.mark_interrupted()
        _check_name(request, ledger)
        ledger.start_run(
            run_id, pipeline=request.name, model_name=request.name, config_json=orjson.dumps(_config(request)).decode()
        )
        with _closed(ledger, run_id), tempfile.TemporaryDirectory(prefix="tunegate-check-") as folder:
            return _Check(request, ledger, open_store(settings), run_id, Path(folder), ledger.identity() or "").run(
                files
            )


def _config(request: CheckRequest) -> dict[str, object]:
    """What the run's row has of the request."""
    gates = None if request.terms is None else request.terms.gates.model_dump(mode="json", exclude_defaults=True)
    return {"check": {"candidate": Path(request.candidate).name, "of": request.version_of}, "gates": gates}


def _check_name(request: CheckRequest, ledger: Ledger) -> None:
    name = request.name
    models = ledger.candidates(name)
    # Before its first run, too: once the name has results, that run would have no champion to compare with.
    declares = None if models or ledger.is_checked(name) else _declared_by(name, request.config)
    if models or declares:
        what = "models that were trained here" if models else f"the models of pipeline {declares} in {request.config}"
        raise ConfigError(
            f"the versions of {name} are {what}", code="TG0159", where=name,
            hint=f"`tunegate run {declares or 'PIPELINE'}` judges its models; for results from files choose another "
            f"name, and `--pipeline {declares or 'PIPELINE'}` judges them by its gate",
        )  # fmt: skip
    if ledger.current(name) is None and request.champion is None:
        raise ConfigError(
            f"{name} has no champion to compare with", code="TG0159", where=name,
            hint="--champion FILE gives the results of the model that is in service; it becomes version 1",
        )  # fmt: skip


def _declared_by(name: str, config: Path | None) -> str | None:
    """The pipeline that is called so, or registers its models under this name; None if there is none."""
    if config is None or not config.exists():
        return None
    broken: Collection[str] = ()
    try:
        pipelines = load_file(config).pipelines
    except ConfigErrors as error:  # what is wrong elsewhere is no reason to judge nothing
        pipelines, broken = error.valid, error.readable
    models = {each.name: each.registry.name for each in pipelines.values() if isinstance(each, PipelineSpec)}
    if name in models or name in broken:
        return name
    return next((pipeline for pipeline, registered in models.items() if registered == name), None)


@contextmanager
def _closed(ledger: Ledger, run_id: str) -> Iterator[None]:
    """Record how a check ended that raises."""
    try:
        yield
    except TunegateError as error:
        ledger.finish_run(run_id, status="FAILED", reason=f"{error.code}: {error.message}", exit_code=error.exit_code)
        raise
    except Exception as error:  # its text may have that of an item
        ledger.finish_run(run_id, status="FAILED", reason=type(error).__name__, exit_code=1)
        raise
    except BaseException as error:  # Ctrl-C, SIGTERM
        code = 130 if isinstance(error, KeyboardInterrupt) else 143
        ledger.finish_run(run_id, status="INTERRUPTED", reason=type(error).__name__, exit_code=code)
        raise


@dataclass
class _Check:
    """One check, which holds the lock of its name."""

    request: CheckRequest
    ledger: Ledger
    store: Store
    run_id: str
    folder: Path
    """For temporary files."""
    salt: str
    """Of the ledger's hashes."""

    def run(self, files: Mapping[str, ResultFile]) -> CheckedFiles | Outcome:
        request = self.request
        model = self._model(request.version_of or files["tuned"].digest)
        current = self._champion()
        is_champion = current is not None and current.model.digest == model.digest
        if current is not None and is_champion and not request.version_of:
            return self._is_champion(current)
        terms, traits, values, judged = self._measure(files)
        faults = [
            fault
            for arm, file in files.items()
            for fault in faults_of(file, "candidate" if arm == "tuned" else arm, judged)
        ]
        kept = {arm: hashed(measured(file, terms.evaluate, self._new()), salt=self.salt) for arm, file in files.items()}
        how = {arm: self._measured_by(file, terms) for arm, file in files.items()}
        redrawn = list(self._changed(kept["tuned"], how["tuned"], model, "candidate"))
        if current is not None and is_champion and not redrawn:
            return self._is_champion(current)
        faults += redrawn  # also of the champion: another model has got its reference
        if current is not None and "champion" in kept:
            faults += self._changed(kept["champion"], how["champion"], current.model, "champion")
        stored: dict[str, CheckedResults] = {}
        if current is not None and "champion" not in kept:
            stored["champion"] = self._kept_for(current, kept["tuned"], how["tuned"], judged)
        anchor = self._anchor(current, terms)
        if "anchor" in kept and anchor is None:
            raise ConfigError(
                "no other champion than today's is an anchor of this gate", code="TG0139", where="--anchor",
                hint="leave it out: the ledger knows the best champion so far",
            )  # fmt: skip
        if anchor is not None and "anchor" in kept:
            faults += self._changed(kept["anchor"], how["anchor"], anchor.model, "anchor")
        if anchor is not None and "anchor" not in kept:
            stored["anchor"] = self._kept_for(anchor, kept["tuned"], how["tuned"], judged)
        for arm, results in stored.items():
            kept[arm], how[arm] = read_stored(results), results.measured
            values[arm] = values_of(kept[arm], None, self._new())
        if self.request.terms is None:
            terms = with_clusters(terms, [kept[arm] for arm in stored])
        faults += [
            PairFault(
                f"{metric} is measured alike for both", f"that of candidate and {arm} was not measured in the same way;"
                f" --{arm} FILE gives results that are"
            )
            for arm in stored for metric in judged if how[arm].get(metric) != how["tuned"].get(metric)
        ]  # fmt: skip
        ordered = {arm: kept[arm] for arm in ("tuned", "champion", *kept)}
        paired = PairedFiles.of(ordered, files["tuned"], terms, traits, faults=faults)
        if paired.faults:
            version = None if current is None else current.version
            return self._recorded_error(paired.judge(self.folder, values, GateContext(champion_version=version)))
        return self._judge(paired, values, model, current, anchor, how)

    def _judge(
        self,
        paired: PairedFiles,
        values: Mapping[str, Mapping[str, Mapping[str, float]]],
        model: CheckedModel,
        current: CheckedRef | None,
        anchor: CheckedRef | None,
        how: Mapping[str, dict[str, str]],
    ) -> CheckedFiles:
        """Judge files whose items are paired; record everything and promote the candidate if it is better."""
        ledger, terms = self.ledger, paired.terms
        results = self._results(paired.files["tuned"], how["tuned"])
        theirs = self._results(paired.files["champion"], how["champion"])
        if current is None:
            current = self._first(theirs)
        rules = terms_of_gates(
            terms.gates,
            None if terms.evaluate is None else terms.evaluate.model_dump(mode="json", exclude_defaults=True),
            [each.model_dump(mode="json") for each in paired.traits if each.name in terms.gates.judged_metrics()],
            {metric: how["tuned"].get(metric) for metric in terms.gates.judged_metrics()},
        )
        items = self._items(item_keys(list(paired.files.values()), self._known_items()))
        inputs = digest_of([model.digest, results.digest, theirs.digest, items.digest, rules.rules, current.version])
        ledger.set_digests(self.run_id, inputs=inputs, code="", terms=rules)
        state = RegistryState(
            judged=ledger.looks(), terms=rules, held_out=ledger.held_out_items,
            seen=ledger.seen_items(self.request.name, inputs),
        )  # fmt: skip
        record_held_out(ledger, items)
        steps: tuple[tuple[str, Artifact], ...] = (
            (MODEL, model), (RESULTS, results), (CHAMPION_MODEL, current.model), (CHAMPION_RESULTS, theirs),
            ("items", items),
        )  # fmt: skip
        for step, artifact in steps:
            self._record(step, artifact)
        context = GateContext(
            champion_version=current.version,
            anchor_version=current.version if anchor is None else anchor.version,
            endpoint=paired.files["endpoint"].path.name if "endpoint" in paired.files else "",
            traits=tuple(paired.traits),
            used_budget=state.used_budget(items, model),
        )
        checked = paired.judge(self.folder, values, context)
        decision = self._decision(checked.decision)
        self._record("gate", decision)
        evidence = {
            "gates": digest_of(terms.gates), "items": items.digest, "decision": decision.digest,
            "champion_results": theirs.digest, "better_than": surpassed(decision),
        }  # fmt: skip
        ref = CheckedRef(
            name=self.request.name, version="", run_id=self.run_id, model=model, results=results,
            verdict_digest=decision.digest, promoted_at="",
        )  # fmt: skip
        version = ledger.record_candidate(ref, verdict=decision.verdict, reason=decision.reason, evidence=evidence)
        outcome = self._carry_out(decision, version, expected=current.version)
        return replace(checked, decision=decision, outcome=self._close(outcome))

    def _carry_out(self, decision: GateDecision, version: str, *, expected: str) -> Outcome:
        ledger, name = self.ledger, self.request.name
        event = None
        if decision.verdict == "PROMOTE":
            verdict = RunVerdict(self.run_id, decision.reason, decision.digest)
            event = ledger.promote(name, expected=expected, version=version, verdict=verdict, waits=self.request.waits)
        note = f"; {event.note}" if event is not None and event.note else ""
        outcome = outcome_of(ledger, self.run_id, decision.verdict, decision.reason + note, version=version)
        return held(outcome, event) if event is not None and event.action not in MOVES else outcome

    def _close(self, outcome: Outcome) -> Outcome:
        is_skip = outcome.verdict in ("SKIP", "DONE")
        self.ledger.finish_run(
            self.run_id,
            status="SKIPPED" if is_skip else "DONE",
            verdict=None if outcome.verdict == "SKIP" or outcome.verdict == "DONE" else outcome.verdict,
            reason=outcome.reason,
            exit_code=outcome.exit_code,
        )
        return outcome

    def _is_champion(self, current: CheckedRef) -> Outcome:
        reason = f"version {current.version} is champion already, since {current.promoted_at} (run {current.run_id})"
        skip = outcome_of(self.ledger, self.run_id, "SKIP", reason, version=current.version, holds="PROMOTE")
        return self._close(skip)

    def _recorded_error(self, checked: CheckedFiles) -> CheckedFiles:
        """Nothing was judged, so that nothing but the run is recorded: the next file is judged as if this were none."""
        outcome = outcome_of(self.ledger, self.run_id, "ERROR", checked.decision.reason)
        return replace(checked, outcome=self._close(outcome))

    def _measure(
        self, files: Mapping[str, ResultFile]
    ) -> tuple[GateTerms, list[MetricTraits], dict[str, Mapping[str, Mapping[str, float]]], tuple[str, ...]]:
        """Terms, traits of all metrics, values of each arm, and the judged metrics."""
        request, terms = self.request, self.request.terms
        evaluate = None if terms is None else terms.evaluate
        values: dict[str, Mapping[str, Mapping[str, float]]]
        values = {arm: values_of(file, evaluate, self._new()) for arm, file in files.items()}
        traits = traits_of_files(values, terms, request.lower_is_better)
        if terms is None:
            terms = default_terms(list(files.values()), traits, metric=request.metric)
        return terms, traits, values, tuple(terms.gates.judged_metrics())

    def _champion(self) -> CheckedRef | None:
        """The champion, whose results are what was promoted."""
        current = self.ledger.current(self.request.name)
        if not isinstance(current, CheckedRef):
            return None
        check_champion(self.ledger, self.request.name)
        return current

    def _anchor(self, current: CheckedRef | None, terms: GateTerms) -> CheckedRef | None:
        """The best champion so far, if a rule needs it and it is another one than the champion."""
        best = self.ledger.best_champion(self.request.name)
        if current is None or best is None or best == current.version or not terms.gates.needs_anchor:
            return None
        row = self.ledger.version(self.request.name, best)
        return row.ref if row is not None and isinstance(row.ref, CheckedRef) else None

    def _first(self, results: CheckedResults) -> CheckedRef:
        """Record what is in service before the first check; it becomes champion on the word of who checks."""
        name, ledger = self.request.name, self.ledger
        ref = CheckedRef(
            name=name, version="", run_id=self.run_id, model=self._model(results.sha256), results=results,
            verdict_digest="", promoted_at="",
        )  # fmt: skip
        reason = f"in service before the first check, by the results in {results.name}"
        version = ledger.record_candidate(ref, verdict="UNCOMPARED", reason=reason)
        ledger.force(name, expected=None, version=version, reason=reason, actor=self.request.actor, uncompared=True)
        current = self._champion()
        if current is None:
            raise StorageError(f"{name} has no champion", code="TG0580", where=name)
        return current

    def _earlier(self, model: Artifact) -> Iterator[tuple[str, CheckedResults]]:
        """Yield the runs that judged with results of the model, and these; the newest first.

        Raises:
            StorageError: TG0510, such results are gone or damaged.
        """
        for row in self.ledger.runs_with_step(RESULTS, pipeline=self.request.name):
            steps = {step.step: step for step in self.ledger.steps(row.run_id) if step.key}
            for of, step in ((MODEL, RESULTS), (CHAMPION_MODEL, CHAMPION_RESULTS)):
                if of in steps and step in steps and steps[of].digest == model.digest:
                    found = self.store.whole(RESULTS, steps[step].key, CheckedResults, deep=True)
                    if found is None:
                        place = self.store.place(RESULTS, steps[step].key)
                        raise StorageError(
                            f"the results that run {row.run_id} kept are gone or not what they were", code="TG0510",
                            where=str(place), hint="restore the folder from a backup",
                        )  # fmt: skip
                    yield row.run_id, found

    def _changed(self, file: ResultFile, how: dict[str, str], model: Artifact, arm: str) -> Iterator[PairFault]:
        for run_id, earlier in self._earlier(model):
            yield from changed_items(file, how, earlier, arm=arm, when=f"in run {run_id}")

    def _kept_for(
        self, ref: CheckedRef, candidate: ResultFile, how: Mapping[str, str], judged: Sequence[str]
    ) -> CheckedResults:
        """The newest results of the version that have the candidate's items, measured in the same way if there are;
        without any, those of its verdict."""
        wanted = {row.item_id for row in candidate.rows}
        fitting = []
        for _, results in self._earlier(ref.model):
            if {row.item_id for row in read_stored(results).rows} == wanted:
                if all(results.measured.get(metric) == how.get(metric) for metric in judged):
                    return results
                fitting.append(results)
        return fitting[0] if fitting else ref.results

    def _measured_by(self, file: ResultFile, terms: GateTerms) -> dict[str, str]:
        """Metric -> how the file's values of it come about."""
        own = file.metrics
        scored = digest_of(["exact" if terms.evaluate is None else terms.evaluate])
        return {name: COLUMN if name in own else scored for name in measured(file, terms.evaluate, self._new()).metrics}

    def _model(self, of: str) -> CheckedModel:
        # A reference is one of its name: two teams may both say `main`. A sha256 is the same file everywhere.
        content = {"of": of, **({"name": self.request.name} if of == self.request.version_of else {})}
        return self._keep(
            MODEL, CheckedModel(root=Path(), of=of), lambda out: write_json(out / "model.json", content),
            content.get("name", ""),
        )  # fmt: skip

    def _known_items(self) -> Iterator[str]:
        """Yield the items that verdicts of the name were about, the oldest first."""
        runs = reversed(self.ledger.runs_with_step("items", pipeline=self.request.name))
        for key in dict.fromkeys(self.ledger.keys_of(row.run_id)["items"] for row in runs):
            found = self.store.whole("items", key, EvalSet)
            if found is not None:
                yield from ids_of(found)

    def _results(self, file: ResultFile, how: dict[str, str]) -> CheckedResults:
        lines = to_lines(file)
        results = CheckedResults(
            root=Path(), name=file.path.name, sha256=file.digest, tool=file.tool, model_name=file.model,
            n_items=len({row.item_id for row in file.rows}), measured=how,
        )  # fmt: skip
        return self._keep(
            RESULTS, results, lambda out: write_atomic(out / ROWS, lines), hashlib.sha256(lines).hexdigest()
        )

    def _items(self, keys: list[str]) -> EvalSet:
        def write(out: Path) -> None:
            pq.write_table(pa.Table.from_pydict({"item_id": keys}), out / "items.parquet")

        return self._keep("items", EvalSet(root=Path(), n_items=len(keys), n_available=len(keys)), write, *keys)

    def _decision(self, decision: GateDecision) -> GateDecision:
        return self._keep("gate", decision, lambda out: write_decision(decision, out=out))

    def _keep(self, step: str, artifact: A, write: Callable[[Path], None], *content: str) -> A:
        """Store files under the digest of what is in them."""

        def produce(out: Path) -> A:
            write(out)
            return artifact.model_copy(update={"root": out, "digest": ""})

        key = digest_of([artifact.model_dump(mode="json", exclude={"root", "digest"}), *content])
        return self.store.obtain(step, key, type(artifact), produce).artifact

    def _record(self, step: str, artifact: Artifact) -> None:
        self.ledger.record_step(self.run_id, step, Obtained(artifact, artifact.root.name, reused=False, seconds=0.0))

    def _new(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))
