"""`make bench-labels`: recall and precision of label errors, next to cleanlab, on real questions with flipped labels.

3 % of the labels are replaced by another label of the set, drawn alike. One draw of each set is also reviewed through
the files of `tunegate data review`, by a person who knows the labels. Each engine runs in a new process, which reads
a Parquet file and writes the ids of its suspects. QUICK=1: one draw instead of three. RECORD=1: write
`results/labels.md`. The sets are outside the repository (TUNEGATE_DATA, default ../shared/data); without them the
benchmark ends with a message.
"""

import csv
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import pyarrow.parquet as pq

from benchmarks.measure import ENGINES, PROJECT, Bench, Cost, interpreters, isolated, report, run_measured, table
from tasks.assess.retrieval import fit_labels, fit_words
from tasks.curate.rows import ticket_table, write_tickets

ENVIRONMENTS = {"ours": "project", "cleanlab": "cleanlab", "contradiction": "project"}
SETS = {
    "banking77": ("banking77/train.csv", "text", "category"),
    "bitext": ("bitext_support/bitext_support_training_2023-08-18.csv", "instruction", "intent"),
}
"""Set -> file, column of the question, column of the label."""
FLIPPED = 0.03
SEEDS = (0, 1, 2)
LIMIT_S = 300.0
N_REVIEWS = 300
PARTS = 5
"""Of the rows, for the accuracy of a TF-IDF classifier: each part is predicted by one that learned from the others."""
BAR_REPAIRED, BAR_RANDOM, BAR_BACK = 0.85, 0.1, 0.8
BAR_RECALL, BAR_PRECISION = 0.8, 0.5
"""Goal on banking77; on the other set not below cleanlab."""
Rows = list[dict[str, str | int]]


@dataclass(frozen=True)
class Found:
    """One engine on one draw."""

    n_flipped: int
    n_suspects: int
    n_right: int
    cost: Cost

    @property
    def recall(self) -> float:
        return self.n_right / self.n_flipped

    @property
    def precision(self) -> float:
        return self.n_right / max(self.n_suspects, 1)


def main() -> None:
    """Run every engine on every draw."""
    bench = Bench.begin("labels", "scikit-learn", "scipy", "numpy", "pyarrow", "duckdb")
    data = Path(os.environ.get("TUNEGATE_DATA") or PROJECT.parent / "shared" / "data")
    if not all((data / path).exists() for path, _, _ in SETS.values()):
        sys.exit(f"labels: the sets {', '.join(SETS)} are not below {data}; set TUNEGATE_DATA")
    pythons, _ = interpreters(set(ENVIRONMENTS.values()), bench.home)
    figures: dict[str, dict[str, dict[str, float] | None]] = {}
    reviews: dict[str, dict[str, float]] = {}
    rows: list[list[object]] = []
    for name, (path, text, label) in SETS.items():
        questions = read_set(data / path, text, label)
        figures[name] = {}
        for engine, environment in ENVIRONMENTS.items():
            python = pythons.get(environment)
            runs = [run(bench, engine, python, questions, seed) for seed in (SEEDS[:1] if bench.quick else SEEDS)]
            found = [each for each in runs if each is not None]
            figures[name][engine] = summary(found)
            rows.append([name, engine, *as_cells(found)])
        with bench.scratch() as scratch:
            reviews[name] = review(questions, SEEDS[0], scratch)
    head = f"{FLIPPED:.0%} of the labels flipped, means of {1 if bench.quick else len(SEEDS)} draws."
    names = ["set", "engine", "recall", "precision", "suspects", "CPU s", "peak MB"]
    columns = ["set", *next(iter(reviews.values()))]
    reviewed = table(columns, [[name, *each.values()] for name, each in reviews.items()])
    body = f"{table(names, rows)}\n\n{N_REVIEWS} reviews of the first draw, through the files:\n\n{reviewed}"
    last = {"flipped": FLIPPED, "sets": figures, **bars(figures), "reviews": reviews, **review_bars(reviews)}
    bench.finish("Label errors", body, last, head=head)


def read_set(path: Path, text: str, label: str) -> Rows:
    """The questions of a CSV file as ticket rows."""
    with path.open(newline="", encoding="utf-8") as stream:
        return [
            {"ticket_id": f"t{number:06d}", "body": row[text], "category": row[label], "source": path.name,
             "source_line": number}
            for number, row in enumerate(csv.DictReader(stream))
        ]  # fmt: skip


def with_flips(questions: Rows, seed: int) -> tuple[Rows, set[str]]:
    """The rows, some with another label, and the ids of these."""
    draw = random.Random(seed)  # noqa: S311
    names = sorted({str(row["category"]) for row in questions})
    flipped = set(draw.sample([str(row["ticket_id"]) for row in questions], round(FLIPPED * len(questions))))
    return [
        row | {"category": draw.choice([name for name in names if name != row["category"]])}
        if row["ticket_id"] in flipped
        else row
        for row in questions
    ], flipped


def run(bench: Bench, engine: str, python: Path | None, questions: Rows, seed: int) -> Found | None:
    """Run one engine on one draw; None if it is not available or fails."""
    if python is None:
        return None
    flipped_rows, flipped = with_flips(questions, seed)
    with bench.scratch() as scratch:
        folder, answer = scratch / "tickets", scratch / "answer.parquet"
        folder.mkdir()
        write_tickets(ticket_table(flipped_rows), folder)
        own = ENVIRONMENTS[engine] == "project"
        command = [python, ENGINES / "labels.py", engine, folder / "tickets.parquet", answer]
        cost = run_measured(
            command, limit_s=LIMIT_S, environment=isolated(scratch, own=own, OMP_NUM_THREADS="1"), folder=scratch,
            scratch=scratch,
        )  # fmt: skip
        if not cost.complete:
            report(f"{engine}: {cost.failure}")
            return None
        suspects = set(pq.read_table(answer)["ticket_id"].to_pylist())
    return Found(len(flipped), len(suspects), len(suspects & flipped), cost)


def review(questions: Rows, seed: int, folder: Path) -> dict[str, float]:
    """Flip labels, curate, answer `N_REVIEWS` rows of the review file, read them, curate again; measure the labels."""
    flipped_rows, flipped = with_flips(questions, seed)
    truth = {str(row["ticket_id"]): str(row["category"]) for row in questions}
    columns = ["ticket_id", "body", "category"]
    with (folder / "tickets.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(flipped_rows)
    (folder / "corrections.jsonl").touch()
    (folder / "pipelines.yaml").write_text(PIPELINE)

    def tunegate(*arguments: str) -> None:
        command = [sys.executable, "-m", "flows.cli", *arguments, "--config", "pipelines.yaml", "--json"]
        environment = isolated(folder, own=True, OMP_NUM_THREADS="1", PREFECT_API_URL="http://127.0.0.1:9/api")
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"labels: {' '.join(arguments)}: {done.stderr[-2000:]}")

    tunegate("run", "tickets")
    tunegate("data", "review", "tickets", "--write", "review.csv", "--limit", str(N_REVIEWS))
    with (folder / "review.csv").open(newline="", encoding="utf-8") as stream:
        listed = list(csv.DictReader(stream))
    for row in listed:
        right = truth[row["ticket_id"]]
        row["decision"] = "right" if row["value"] == right else "change"
        row["new"] = right if row["decision"] == "change" and row["proposed"] != right else ""
    with (folder / "filled.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(listed[0]))
        writer.writeheader()
        writer.writerows(listed)
    tunegate("data", "review", "tickets", "--read", "filled.csv", "--rater", "person")
    tunegate("run", "tickets")
    made = max(folder.glob(".tunegate/store/corrections/*/tickets.parquet"), key=lambda path: path.stat().st_mtime)
    corrected = pq.read_table(made, columns=["ticket_id", "category"]).to_pydict()
    after = dict(zip(corrected["ticket_id"], corrected["category"], strict=True))
    chosen = random.Random(seed + 1000).sample(sorted(truth), N_REVIEWS)  # noqa: S311
    before = {str(row["ticket_id"]): str(row["category"]) for row in flipped_rows}
    texts = {str(row["ticket_id"]): str(row["body"]) for row in questions}
    whole, flawed, mended = (accuracy(texts, labels, truth) for labels in (truth, before, after))
    return {
        "reviewed": len(listed),
        "flipped": len(flipped),
        "review_repaired": round(sum(after[id_] == truth[id_] for id_ in flipped) / len(flipped), 4),
        "review_random": round(len(flipped & set(chosen)) / len(flipped), 4),
        "accuracy": round(whole, 4),
        "accuracy_flipped": round(flawed, 4),
        "accuracy_reviewed": round(mended, 4),
        "review_accuracy_back": round((mended - flawed) / max(whole - flawed, 1e-9), 4),
    }


PIPELINE = """version: 1
pipelines:
  tickets:
    source: {kind: files, paths: [tickets.csv]}
    curate:
      corrections: corrections.jsonl
      steps:
        - uses: redact
        - uses: label_check
"""


def accuracy(texts: dict[str, str], labels: dict[str, str], truth: dict[str, str]) -> float:
    """Share of the questions whose true label the baseline `tfidf` predicts, having learned from others' labels."""
    ids, n_right = sorted(texts), 0
    random.Random(0).shuffle(ids)  # noqa: S311
    for part in range(PARTS):
        asked = ids[part::PARTS]
        known = sorted(set(ids) - set(asked))
        vectorizer, features = fit_words([texts[id_] for id_ in known])
        model = fit_labels(features, [labels[id_] for id_ in known], seed=0)
        guesses = model.predict(vectorizer.transform([texts[id_] for id_ in asked]))
        n_right += sum(guess == truth[id_] for guess, id_ in zip(guesses, asked, strict=True))
    return n_right / len(ids)


def review_bars(reviews: dict[str, dict[str, float]]) -> dict[str, bool]:
    """Whether the goals of reviews are met on every set."""
    return {
        "review_within_bar": all(
            each["review_repaired"] >= BAR_REPAIRED
            and each["review_random"] <= BAR_RANDOM
            and each["review_accuracy_back"] >= BAR_BACK
            for each in reviews.values()
        )
    }


def summary(found: list[Found]) -> dict[str, float] | None:
    """The figures of the last line."""
    if not found:
        return None
    return {
        "recall": round(mean(each.recall for each in found), 4),
        "precision": round(mean(each.precision for each in found), 4),
        "suspects": round(mean(each.n_suspects for each in found), 1),
        "cpu_s": round(mean(each.cost.cpu_s for each in found), 2),
        "peak_mb": round(mean(each.cost.peak_mb for each in found)),
    }


def as_cells(found: list[Found]) -> list[object]:
    """The figures of one engine as cells of the table."""
    figures = summary(found)
    if figures is None:
        return ["not available"]
    cells: list[object] = [f"{figures[name]:.3f}" for name in ("recall", "precision")]
    return [*cells, f"{figures['suspects']:.0f}", f"{figures['cpu_s']:.1f}", f"{figures['peak_mb']:.0f}"]


def bars(figures: dict[str, dict[str, dict[str, float] | None]]) -> dict[str, bool | None]:
    """Whether the goals are met; engines are compared by F1."""
    banking, others = figures["banking77"]["ours"], figures["bitext"]
    ours, peer = others["ours"], others["cleanlab"]
    return {
        "within_bar": banking and banking["recall"] >= BAR_RECALL and banking["precision"] >= BAR_PRECISION,
        "not_below_cleanlab": None if ours is None or peer is None else _f1(ours) >= _f1(peer),
    }


def _f1(figures: dict[str, float]) -> float:
    recall, precision = figures["recall"], figures["precision"]
    return 2 * recall * precision / max(recall + precision, 1e-9)


if __name__ == "__main__":
    main()
