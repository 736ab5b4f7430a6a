"""Judge a candidate's results against a champion's, both from files: `tunegate gate check`.

The gate is that of a run (`tasks/assess/gate.py`). What belongs to a model that was trained here, such as the check of
leaks, is left out and named. Earlier verdicts are not counted: a ledger has them, files do not.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from flows.context.outcome import Outcome
from flows.registry.address import registry_address
from flows.workspace.commit import Commit, in_repository
from flows.workspace.settings import Settings
from schemas.artifacts import GateDecision, ScoredArm
from schemas.comparison import with_comparison
from schemas.counted import counted
from schemas.errors import ConfigError, TunegateError
from schemas.evaluation import EvaluateSpec
from schemas.gate_file import load_gate_file
from schemas.gates import GateRule, GatesSpec
from schemas.load import load_file
from schemas.metrics import MetricTraits, traits_by_name, traits_of
from schemas.names import closest
from schemas.pipeline import RegisterSpec
from schemas.report import ArmLine, RunReport
from schemas.verdicts import Finding
from tasks.assess.decision import summarise
from tasks.assess.evidence import BASELINE_ARMS
from tasks.assess.gate import GateContext, JudgedArms, decide
from tasks.assess.weaker import weaker_than
from tasks.model.model_uri import REGISTRY
from tasks.release.registered import fetch_results, find_registered
from tasks.results.pair import PairFault, faults_of, pair
from tasks.results.read import read_results
from tasks.results.rows import ResultFile, is_scored
from tasks.results.scores import slices_of, traits_in, values_of, write_arm, write_items
from tasks.start.champion_rule import choose_comparison

CLUSTER = "cluster"
"""Column of a file of which equal values belong together, such as a customer."""
_OF_A_MODEL = ("contamination", "round_trip")
"""Checks that every gate has by default, and that need the model or what it learned from."""
_DECLARED = ("forgetting", "canaries", "latency", "cost", "judge")
"""Checks that a gate has only if it declares them: they are not dropped without a word of the user."""


@dataclass(frozen=True)
class GateTerms:
    """By which gate the files are judged."""

    gates: GatesSpec
    evaluate: EvaluateSpec | None
    metrics: tuple[MetricTraits, ...]
    origin: str
    """Where the gate is declared, for people."""
    left_out: tuple[str, ...]
    """Checks that are not made."""
    registry: RegisterSpec | None = None
    """When a candidate waits for a person; None if a file of rules declares the gate."""


@dataclass(frozen=True)
class CheckedFiles:
    """A verdict over files, and what it is based on."""

    decision: GateDecision
    terms: GateTerms
    files: Mapping[str, ResultFile]
    """Arm -> file."""
    means: Mapping[str, Mapping[str, float]]
    """Arm -> metric -> mean; empty if the files cannot be compared."""
    metrics: Mapping[str, MetricTraits]
    """The judged metrics that the files have."""
    notes: tuple[str, ...]
    outcome: Outcome | None = None
    """What the ledger has of it; None without one."""


def declared_terms(
    *, rules: Path | None = None, pipeline: str | None = None, config: Path | None = None, without: Sequence[str] = ()
) -> GateTerms | None:
    """Return the gate of a file of rules or of a pipeline; None if neither is given.

    Args:
        without: Declared checks that need a model, to be left out.

    Raises:
        ConfigError: TG0103, both are given, or a declared check cannot be made on files.
    """
    if rules is not None and pipeline is not None:
        raise ConfigError("`--rules` and `--pipeline` name two gates", code="TG0103", hint="give one of them")
    terms = _declared(rules, pipeline, config)
    if terms is None:
        return None
    gates = terms.gates
    if unknown := [name for name in without if name not in _DECLARED]:
        raise ConfigError(
            f"no check {unknown[0]!r} to leave out", code="TG0103", hint=f"there are: {', '.join(_DECLARED)}"
        )
    stuck = [name for name in _DECLARED if getattr(gates, name) is not None and name not in without]
    if stuck:
        raise ConfigError(
            f"the gate declares {', '.join(stuck)}, which files of results cannot show", code="TG0103",
            where=terms.origin, hint=" ".join(f"--without {name}" for name in stuck) + " judges without",
        )  # fmt: skip
    absent = tuple(name for name in (*_OF_A_MODEL, *_DECLARED) if getattr(gates, name) is not None)
    gates = gates.model_copy(update={**dict.fromkeys(absent), "interim": None})
    return replace(terms, gates=gates, left_out=absent)


def _declared(
    rules: Path | None, pipeline: str | None, config: Path | None, given: Sequence[str] = ()
) -> GateTerms | None:
    if rules is not None:
        file = load_gate_file(rules)
        gates = with_comparison(file.gates, file.evaluate)
        return GateTerms(gates, file.evaluate, file.metrics, f"rules of {rules}", ())
    if pipeline is not None and config is not None:
        spec = load_file(config, settings=given, only=pipeline).get(pipeline)
        origin = f"pipeline {pipeline} of {config}"
        return GateTerms(spec.judged_gates, spec.evaluate, (), origin, (), spec.registry)
    return None


def weakened(
    against: str, *, rules: Path | None, pipeline: str | None, config: Path, given: Sequence[str] = ()
) -> list[str]:
    """Return in what the declared gate is weaker than at a commit, a sentence each.

    A gate that is not there at the commit, or that cannot be read there, is one of them: nothing shows that today's is
    as strict.

    Args:
        against: A commit, branch or tag of the repository that has the file.
        given: Settings of this call alone, as of `--set`.

    Raises:
        ConfigError: TG0139, no gate is declared; TG0159, git has no such commit.
    """
    now = _declared(rules, pipeline, config, given)
    if now is None:
        raise ConfigError(
            "the default gate is in no file that a commit could have", code="TG0139", where="--against",
            hint="--rules FILE or --pipeline NAME declares a gate",
        )  # fmt: skip
    file = rules or config
    if link := _link_in_repository(file):
        return [f"{file} is reached by the link {link}, so that nothing shows that the gate is as strict"]
    commit = Commit(file.resolve().parent, against)
    if file.name not in commit.names:
        return [f"{file.name} is not in {against}, so that nothing shows that the gate is as strict"]
    with tempfile.TemporaryDirectory(prefix="tunegate-against-") as name:
        commit.write([file.name], Path(name))
        past = Path(name) / file.name
        try:
            before = _declared(past if rules is not None else None, pipeline, past)
        except TunegateError as error:
            return [
                f"the gate in {against} cannot be read ({error.code}), so that nothing shows that this is as strict"
            ]
    if before is None:
        return []
    return [
        *_promoted_more_easily(before.registry, now.registry),
        *weaker_than(
            before.gates, now.gates, evaluate=(before.evaluate, now.evaluate), traits=(before.metrics, now.metrics)
        ),
    ]


def _link_in_repository(file: Path) -> Path | None:
    """The first symbolic link in the path that is part of a repository: a change may point it at another gate."""
    path = file.absolute()
    links = (each for each in (path, *path.parents) if each.is_symlink())
    return next((each for each in links if in_repository(each.parent)), None)


def _promoted_more_easily(before: RegisterSpec | None, now: RegisterSpec | None) -> Iterator[str]:
    """In what the section `register` lets a candidate in with less, a sentence each."""
    if before is None or now is None:
        return
    if (before.approval, now.approval) == ("required", "none"):
        yield "register.approval is none, and was required"
    for key in ("cooldown_days", "cooldown_items"):
        old, new = getattr(before, key), getattr(now, key)
        if new < old:
            yield f"register.{key} is {new:g}, and was {old:g}"


def default_terms(files: Sequence[ResultFile], metrics: Sequence[MetricTraits], *, metric: str | None) -> GateTerms:
    """Return the comparison with the champion that `tunegate init` writes for so many items, and nothing else.

    Args:
        metrics: The traits of all metrics that the files have or answers are scored by.
        metric: The one to compare; None takes the only one there is, with `exact` of answers that have a reference.

    Raises:
        ConfigError: TG0103, the metric is not there, or it is not clear which is meant.
    """
    names = [traits.name for traits in metrics]
    choices = list(
        dict.fromkeys([*(name for file in files for name in file.metrics), *["exact"] * all(map(is_scored, files))])
    )
    if metric is None and len(choices) == 1:
        metric = choices[0]
    if metric is None or metric not in names:
        got = f"no metric {metric!r}" if metric else "no rule says which metric is compared"
        raise ConfigError(
            f"{got}; there are: {', '.join(choices) or 'neither metrics nor answers with references'}",
            code="TG0103", where=str(files[0].path), hint="--metric NAME compares one, --rules FILE declares a gate",
        )  # fmt: skip
    traits = next(each for each in metrics if each.name == metric)
    n_items = len({row.item_id for row in files[0].rows})
    change, confidence = choose_comparison(n_items, continuous=traits.continuous)
    gates = GatesSpec(
        rules=(GateRule(metric=metric, change_threshold=change),),
        confidence=confidence,
        contamination=None,
        round_trip=None,
    )
    terms = GateTerms(gates, None, (), f"default for {counted(n_items, 'item')}", _OF_A_MODEL)
    return with_clusters(terms, files)


def with_clusters(terms: GateTerms, files: Iterable[ResultFile]) -> GateTerms:
    """The default gate, which counts clusters if one of the files has any: a candidate cannot drop them."""
    if not any(_has_values(file, CLUSTER) for file in files):
        return terms
    return replace(terms, gates=terms.gates.model_copy(update={"cluster_by": "customer_id"}))


def _has_values(file: ResultFile, column: str) -> bool:
    return any(row.columns.get(column) for row in file.rows)


@dataclass(frozen=True)
class _Columns:
    """Columns of the files by which items are grouped."""

    slices: tuple[str, ...]
    """Of rules and of the guard."""
    cluster: str | None
    """That of `gates.cluster_by`, or `cluster`."""

    @classmethod
    def of(cls, gates: GatesSpec, files: Iterable[ResultFile]) -> _Columns:
        of_rules = [rule.slice.partition("=")[0] for rule in gates.judged_rules if rule.slice]
        slices = dict.fromkeys([*of_rules, *(gates.slices.by if gates.slices else ())])
        if gates.cluster_by is None:
            return cls(tuple(slices), None)
        is_named = any(gates.cluster_by in file.columns for file in files)
        return cls(tuple(slices), gates.cluster_by if is_named else CLUSTER)

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.slices, *([self.cluster] if self.cluster is not None else []))


def check_files(
    *,
    candidate: str,
    champion: str,
    anchor: str | None = None,
    baselines: Mapping[str, str] | None = None,
    terms: GateTerms | None = None,
    metric: str | None = None,
    lower_is_better: Sequence[str] = (),
    id_column: str | None = None,
    mlflow: str = "",
) -> CheckedFiles:
    """Read, pair and judge the files.

    Args:
        candidate: Path of the candidate's results, or a version in MLflow; so are champion, anchor and baselines.
        anchor: The best champion so far; the champion itself if not given.
        baselines: Prompting arm or classifier -> path.
        terms: The gate; None is that of `default_terms`.
        metric: What the default gate compares.
        lower_is_better: Metrics of which less is better.
        id_column: Column with the item's id.
        mlflow: Store or server that has such versions.

    Raises:
        ConfigError: TG0103, an arm or metric is unknown.
        Others: as in `read_arms`.
    """
    check_baselines(baselines or {})
    given = {"tuned": candidate, "champion": champion, "anchor": anchor, **(baselines or {})}
    files = read_arms(given, id_column=id_column, mlflow=mlflow)
    with tempfile.TemporaryDirectory(prefix="tunegate-check-") as name:
        folder = Path(name)
        evaluate = terms.evaluate if terms is not None else None
        values = {arm: values_of(file, evaluate, _new(folder, f"{arm}-answers")) for arm, file in files.items()}
        metrics = traits_of_files(values, terms, lower_is_better)
        if terms is None:
            terms = default_terms(list(files.values()), metrics, metric=metric)
        paired = PairedFiles.of(files, files["tuned"], terms, metrics)
        version = files["champion"].path.name
        context = GateContext(
            champion_version=version,
            anchor_version=files["anchor"].path.name if "anchor" in files else version,
            endpoint=files["endpoint"].path.name if "endpoint" in files else "",
            traits=tuple(metrics),
        )
        checked = paired.judge(folder, values, context)
        # How often these items have judged is not known here.
        return replace(checked, decision=checked.decision.model_copy(update={"use": None}))


def read_arms(given: Mapping[str, str | None], *, id_column: str | None, mlflow: str) -> dict[str, ResultFile]:
    """Read the results of each arm that is given.

    Args:
        given: Arm -> path, or `models:/NAME@ALIAS` or `models:/NAME/VERSION` of MLflow.
        id_column: Column with the item's id.
        mlflow: Store or server that has such versions.

    Raises:
        ConfigError: TG0171, MLflow has no such version.
        DataError: TG0262, a file cannot be read, or it is not clear which results are those of a version.
        ServiceError: TG0710, MLflow does not answer.
    """
    return {
        arm: _registered_results(address, arm, id_column, mlflow)
        if address.startswith(REGISTRY)
        else read_results(address, id_column=id_column)
        for arm, address in given.items()
        if address is not None
    }


def _registered_results(address: str, arm: str, id_column: str | None, mlflow: str) -> ResultFile:
    found = find_registered(address, uri=mlflow, where="--candidate" if arm == "tuned" else f"--{arm}")
    version = f"{found.name} version {found.version}"
    with tempfile.TemporaryDirectory(prefix="tunegate-results-") as name:
        artifact, path = fetch_results(found, Path(name))
        file = read_results(str(path), id_column=id_column)
    model = version if file.model is None else f"{version} ({file.model})"
    return replace(file, path=Path(f"{REGISTRY}{found.name}/{found.version}/{artifact}"), model=model)


def mlflow_of(terms: GateTerms | None, settings: Settings) -> str:
    """The MLflow of the gate's pipeline, else that of the environment or of the home folder."""
    register = terms.registry if terms is not None else None
    return registry_address("" if register is None else register.tracking_uri, settings)


def check_baselines(baselines: Mapping[str, str]) -> None:
    """Raise ConfigError (TG0103) for a baseline that no rule compares with."""
    for arm in baselines:
        if arm not in BASELINE_ARMS:
            raise ConfigError(
                f"no baseline {arm!r}", code="TG0103", hint=f"--baseline ARM=FILE; arms: {', '.join(BASELINE_ARMS)}"
            )


@dataclass(frozen=True)
class PairedFiles:
    """Files of all arms whose items were compared, to be judged if nothing was found."""

    files: Mapping[str, ResultFile]
    grouping: ResultFile
    """The candidate's file, whose columns are those of slices."""
    terms: GateTerms
    traits: Sequence[MetricTraits]
    """Of all metrics."""
    columns: _Columns
    faults: tuple[PairFault, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        files: Mapping[str, ResultFile],
        grouping: ResultFile,
        terms: GateTerms,
        traits: Sequence[MetricTraits],
        *,
        faults: Sequence[PairFault] = (),
    ) -> PairedFiles:
        """Pair them.

        Args:
            faults: What was found before.
        """
        columns, judged = _Columns.of(terms.gates, files.values()), terms.gates.judged_metrics()
        pairings = [
            pair(files["tuned"], file, arm=arm, metrics=judged, columns=columns.all)
            for arm, file in files.items()
            if arm != "tuned"
        ]
        lacking = [name for name in columns.slices if name not in grouping.columns]
        found = [
            *faults,
            *(
                PairFault("slices that are judged are in the files", f"the candidate has no column {name}")
                for name in lacking
            ),
            *_clusters_dropped(files, columns.cluster),
            *faults_of(files["tuned"], "candidate", judged),
            *(fault for each in pairings for fault in each.faults),
        ]
        notes = tuple(note for each in pairings for note in each.notes)
        return cls(files, grouping, terms, traits, columns, tuple(dict.fromkeys(found)), notes)

    def judge(
        self, folder: Path, values: Mapping[str, Mapping[str, Mapping[str, float]]], context: GateContext
    ) -> CheckedFiles:
        """Come to the verdict; ERROR if the files cannot be compared.

        Args:
            folder: Empty, for temporary files.
            values: Of each arm, item -> metric -> value.
        """
        judged = self.terms.gates.judged_metrics()
        traits = {each.name: each for each in self.traits if each.name in judged}
        if self.faults:
            error = _error(folder, self.faults, self.files, context.champion_version)
            return CheckedFiles(error, self.terms, self.files, {}, traits, self.notes)
        slices = list(slices_of(self.grouping, self.columns.slices))
        arms = {
            arm: write_arm(values[arm], arm=cast(ScoredArm, arm), slices=slices, out=_new(folder, arm))
            for arm in self.files
        }
        items, gates, cluster = None, self.terms.gates, self.columns.cluster
        if cluster is not None and gates.cluster_by is not None:
            items = write_items(self.files["tuned"], {cluster: gates.cluster_by}, _new(folder, "items"))
        arms_judged = JudgedArms(
            candidate=arms["tuned"],
            champion=arms["champion"],
            anchor=arms.get("anchor"),
            baselines=tuple(arms[arm] for arm in BASELINE_ARMS if arm in arms),
            items=items,
        )
        decision = decide(_new(folder, "gate"), judged=arms_judged, gates=gates, context=context)
        means = {arm: scores.means for arm, scores in arms.items()}
        return CheckedFiles(decision, self.terms, self.files, means, traits, self.notes)


def _clusters_dropped(files: Mapping[str, ResultFile], column: str | None) -> Iterator[PairFault]:
    """Yield each file without the clusters that others have: items that are judged alone count for more."""
    if column is None:
        return
    lacking = [arm for arm, file in files.items() if not _has_values(file, column)]
    for arm in lacking if len(lacking) < len(files) else ():
        which = "candidate" if arm == "tuned" else arm
        yield PairFault(
            "clusters are in each file",
            f"the {which} has no {column}, and another file does; write the column into each file",
        )


def traits_of_files(
    values: Mapping[str, Mapping[str, Mapping[str, float]]], terms: GateTerms | None, lower_is_better: Sequence[str]
) -> list[MetricTraits]:
    """The traits of all metrics.

    Args:
        values: Of each arm, item -> metric -> value.

    Raises:
        ConfigError: TG0103, a metric that is described is in no file: a slip in its name would turn its direction.
    """
    evaluate = terms.evaluate if terms is not None else None
    described = [each.name for each in terms.metrics] if terms is not None else []
    declared = [*(terms.metrics if terms is not None else ()), *(evaluate.traits() if evaluate is not None else ())]
    known = traits_by_name(declared)
    declared += [traits_of(each, known).model_copy(update={"higher_is_better": False}) for each in lower_is_better]
    metrics = traits_in(list(values.values()), declared)
    names = [each.name for each in metrics]
    if missing := [each for each in (*described, *lower_is_better) if each not in names]:
        raise ConfigError(f"no metric {missing[0]!r} in the files", code="TG0103", hint=closest(missing[0], names))
    return metrics


def _new(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir()
    return path


def _error(
    folder: Path, faults: Sequence[PairFault], files: Mapping[str, ResultFile], champion: str | None
) -> GateDecision:
    """The verdict over files that cannot be compared."""
    findings = tuple(
        Finding(
            rule=fault.rule, metric="items", verdict="ERROR", n_items=fault.n_items, candidate=None, method="pairing",
            reason=f"{fault.reason}.",
        )
        for fault in faults
    )  # fmt: skip
    return GateDecision(
        root=folder,
        verdict="ERROR",
        reason=summarise(findings, "ERROR"),
        findings=findings,
        n_items=len({row.item_id for row in files["tuned"].rows}),
        champion_version=champion,
    )


def remarks(checked: CheckedFiles) -> Iterator[str]:
    """Yield what people should know of the way the verdict was reached."""
    yield from checked.notes
    for what, higher in (("more", True), ("less", False)):
        if names := [each.name for each in checked.metrics.values() if each.higher_is_better == higher]:
            yield f"{what} is better: {', '.join(names)}"
    if checked.terms.gates.needs_anchor and "anchor" not in checked.files and checked.outcome is None:
        yield "the champion is taken for the best champion so far; --anchor FILE gives another"
    if checked.terms.left_out:
        yield f"not checked, since files do not show it: {', '.join(checked.terms.left_out)}"
    if checked.outcome is None:
        yield "earlier verdicts on these items are not counted"


def report_of(checked: CheckedFiles, *, command: str) -> RunReport:
    """The report of a verdict over files, for the page, Markdown and JUnit."""
    decision, files, outcome = checked.decision, checked.files, checked.outcome
    now = datetime.now(UTC).isoformat()
    return RunReport(
        run_id=outcome.run_id if outcome else f"gate-check-{files['tuned'].digest[:12]}",
        pipeline=outcome.pipeline if outcome else "gate-check",
        model_name=files["tuned"].path.name,
        verdict=outcome.verdict if outcome else decision.verdict,
        reason=outcome.reason if outcome else decision.reason,
        started_at=now,
        ended_at=now,
        version=outcome.version if outcome else None,
        compared_with=decision.champion_version,
        champion=outcome.champion if outcome else decision.champion_version,
        evidence="; ".join(filter(None, (decision.evidence_used(), *remarks(checked)))),
        n_items=decision.n_items,
        findings=decision.findings,
        arms=tuple(ArmLine(arm=arm, n_items=decision.n_items, means=dict(checked.means.get(arm, {}))) for arm in files),
        funnel=(),
        removed=(),
        training={},
        curves=(),
        token_lengths=(),
        choice=(),
        worst=(),
        changes=(),
        steps=(),
        reproduce=command,
    )
