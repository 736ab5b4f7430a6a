"""The verdict over two files of results against the verdict of a run: equal to the last digit, or a bar is missed.

Group `files` of `make bench-gates`. Each pair of whole vectors that the league judges (tails, customers, slices), and
samples of the real pairs and of the candidates that are simulated as counts, are written as files of per-item results,
shuffled, in the three forms of one's own in turn; `check_files` reads, pairs and judges them. A run has the same values
in its own tables.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.gates.league import FULL, QUICK, draw_trials, scored_slices
from benchmarks.gates.real_pairs import Pair
from benchmarks.gates.rules import Trial
from benchmarks.gates.simulated import SCENARIOS, SLICES, draw
from flows.views.gate_check import GateTerms, check_files, declared_terms
from schemas.artifacts import EvalSet, GateDecision, ScoredArm, Scores
from tasks.assess.gate import GateContext, JudgedArms, decide
from tasks.assess.score import write_scores

MODES = ("{mode: improve}", "{mode: refresh, margin: 0.02}", "{mode: no_worse, margin: 0.03}")
UNEQUAL = "unequal"
FORMS = ("jsonl", "csv", "parquet")
SAMPLED = 9
"""Candidates of each world that is drawn as counts; QUICK: pairs of each that the league has as vectors, too."""


def files(*, quick: bool, pairs: Sequence[Pair] = (), seed: int = 20260601) -> dict[str, object]:
    """All figures of the group.

    Args:
        pairs: Real ones, of which held-out samples are judged.
    """
    size, rows = (QUICK, SAMPLED) if quick else (FULL, FULL.rows)
    generator = np.random.default_rng([seed, 5])
    # The seed of the league: the same pairs.
    trials = [*draw_trials(np.random.default_rng([seed, 1]), size.rows), *counted(generator, size.sizes)]
    for pair in pairs:
        n = min(size.real_items, pair.n)
        won, lost = pair.samples(generator, n, SAMPLED)
        trials.append(scored_slices(pair.candidate, won[:, None], lost[:, None], np.array([n])))
    found = Counter[str]()
    with tempfile.TemporaryDirectory(prefix="tunegate-files-") as name:
        for number, trial in enumerate(trials):
            folder = Path(name) / str(number)
            folder.mkdir()
            found.update(shared_verdicts(trial, folder, rows=rows))
            shutil.rmtree(folder)
    unequal = found.pop(UNEQUAL, 0)
    return {"file_verdicts_equal": found.total(), "file_verdicts_unequal": unequal, "file_verdicts": dict(found)}


def counted(generator: np.random.Generator, sizes: Sequence[int]) -> Iterator[Trial]:
    """Yield samples of the candidates of `simulated.py`, at each number of items."""
    for n in sizes:
        for name, deltas in SCENARIOS.items():
            drawn = draw(generator, SAMPLED, n, deltas)
            yield scored_slices(f"{name}, {n} items", drawn.gained, drawn.lost, np.full(SLICES, drawn.n))


def shared_verdicts(trial: Trial, folder: Path, *, rows: int) -> Iterator[str]:
    """Yield the verdict of each of the first pairs, `UNEQUAL` where files and run differ in it, its reason or findings.

    Args:
        folder: Empty.
    """
    terms = [_terms(trial, mode, folder / f"{number}.yaml") for number, mode in enumerate(MODES)]
    for row in range(min(rows, len(trial.candidate))):
        values = {"tuned": trial.candidate[row], "champion": trial.champion[row]}
        # Other periods than each other, so that each form meets each mode.
        gate, form = terms[row % len(MODES)], FORMS[row // len(MODES) % len(FORMS)]
        place = _new(folder, str(row))
        ours, theirs = _of_files(trial, values, gate, form, place), _of_run(trial, values, gate, place)
        is_equal = (ours.verdict, ours.reason, ours.findings) == (theirs.verdict, theirs.reason, theirs.findings)
        yield ours.verdict if is_equal else UNEQUAL


def _terms(trial: Trial, mode: str, path: Path) -> GateTerms:
    parts = [f"rules: [{{metric: exact, change_threshold: {mode}}}]"]
    parts += ["slices: {by: [product]}"] if trial.slices is not None else []
    parts += ["cluster_by: customer_id"] if trial.groups is not None else []
    described = "metrics: [{name: exact, continuous: true}]\n" if trial.continuous else ""
    path.write_text(f"gates: {{{', '.join(parts)}}}\n{described}")
    terms = declared_terms(rules=path)
    assert terms is not None
    return terms


def _groups(trial: Trial) -> dict[str, list[str]]:
    """Column -> the group of each item."""
    found = {"product": trial.slices, "customer_id": trial.groups}
    return {name: [f"g{each}" for each in groups] for name, groups in found.items() if groups is not None}


def _ids(n: int) -> list[str]:
    return [f"i{number:05}" for number in range(n)]


def _of_files(
    trial: Trial, values: dict[str, NDArray[np.float64]], terms: GateTerms, form: str, folder: Path
) -> GateDecision:
    """The verdict of `tunegate gate check` over files that are written here."""
    paths = {}
    for number, (arm, scores) in enumerate(values.items()):
        order = np.random.default_rng(number).permutation(len(scores))
        columns = {"item_id": _ids(len(scores)), **_groups(trial), "exact": scores.tolist()}
        paths[arm] = folder / f"{arm}.{form}"
        _write(pa.table({name: [cells[place] for place in order] for name, cells in columns.items()}), paths[arm])
    return check_files(candidate=str(paths["tuned"]), champion=str(paths["champion"]), terms=terms).decision


def _write(table: pa.Table, path: Path) -> None:
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    elif path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        path.write_bytes(b"\n".join(map(orjson.dumps, table.to_pylist())))


def _of_run(trial: Trial, values: dict[str, NDArray[np.float64]], terms: GateTerms, folder: Path) -> GateDecision:
    """The verdict of a run that has scored its items so."""
    groups, ids = _groups(trial), _ids(trial.candidate.shape[1])
    slices = [(item, f"product={name}") for item, name in zip(ids, groups.get("product", ()), strict=False)]

    def scored(arm: ScoredArm) -> Scores:
        out = _new(folder, f"run-{arm}")
        rows: list[Any] = [(item, {"exact": value}) for item, value in zip(ids, values[arm].tolist(), strict=True)]
        return write_scores(rows, metrics=("exact",), slices=slices, arm=arm, out=out)

    items = None
    if "customer_id" in groups:
        out = _new(folder, "run-items")
        pq.write_table(pa.table({"item_id": ids, "customer_id": groups["customer_id"]}), out / "items.parquet")
        items = EvalSet(root=out, n_items=len(ids), n_available=len(ids))
    version = "champion" + next(path.suffix for path in folder.glob("champion.*"))
    return decide(
        _new(folder, "run-gate"),
        judged=JudgedArms(candidate=scored("tuned"), champion=scored("champion"), items=items),
        gates=terms.gates,
        context=GateContext(champion_version=version, anchor_version=version, traits=terms.metrics),
    )


def _new(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir()
    return path
