"""`make bench-rag`: recall@k of the passages of `evaluate.corpus` on real texts, next to rank-bm25.

Two sets, both outside the repository (TUNEGATE_DATA, default ../shared/data): Hadoop's bug reports, where the question
is a report and the articles it needs are its duplicates among all others; and banking77, where the article that a
question needs has other questions of its intent. Each engine runs in a new process. QUICK=1:
500 questions of banking77 instead of all. RECORD=1: write `results/rag.md`. Without the sets the benchmark ends with a
message.
"""

import csv
import json
import os
import random
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from benchmarks.measure import ENGINES, PROJECT, Bench, Cost, interpreters, isolated, report, run_measured, table

ENVIRONMENTS = {"ours": "project", "whole": "project", "embeddings": "project", "rank_bm25": "rank-bm25"}
BUGS, LINKS = "gitbugs/hadoop_bugs.csv", "gitbugs/hadoop_bugs-combined.csv"
BANKING = "banking77/train.csv"
KS = (1, 3, 5, 10)
LIMIT_S = 600.0
QUICK_QUESTIONS = 500


@dataclass(frozen=True)
class Set:
    """Articles, questions, and the articles that each question needs."""

    articles: list[dict[str, str]]
    questions: dict[str, str]
    wanted: dict[str, set[str]]


def main() -> None:
    """Run every engine on both sets."""
    bench = Bench.begin("rag", "bm25s", "numpy", "wordllama")
    data = Path(os.environ.get("TUNEGATE_DATA") or PROJECT.parent / "shared" / "data")
    if missing := [name for name in (BUGS, LINKS, BANKING) if not (data / name).exists()]:
        sys.exit(f"rag: {', '.join(missing)} are not below {data}; set TUNEGATE_DATA")
    pythons, _ = interpreters(set(ENVIRONMENTS.values()), bench.home)
    sets = {"gitbugs": duplicates(data), "banking77": intents(data, QUICK_QUESTIONS if bench.quick else None)}
    figures: dict[str, dict[str, dict[str, float] | None]] = {}
    rows: list[list[object]] = []
    for name, each in sets.items():
        figures[name] = {}
        for engine, environment in ENVIRONMENTS.items():
            found = run(bench, engine, pythons.get(environment), each)
            figures[name][engine] = found
            cells = ["not available"] if found is None else list(found.values())
            rows.append([name, engine, *cells])
    sizes = [
        f"{name}: {len(each.articles):,} articles, {len(each.questions):,} questions" for name, each in sets.items()
    ]
    names = ["set", "engine", *(f"recall@{k}" for k in KS), "CPU s", "peak MB"]
    bench.finish("Passages found", table(names, rows), {"sets": figures}, head="; ".join(sizes) + ".")


def duplicates(data: Path) -> Set:
    """Bug reports, and for each with a duplicate among them, that."""
    csv.field_size_limit(10_000_000)
    with (data / BUGS).open(newline="", encoding="utf-8") as stream:
        bugs = {row["Issue id"]: row for row in csv.DictReader(stream)}
    wanted: dict[str, set[str]] = defaultdict(set)
    with (data / LINKS).open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            for other in row["Duplicate id"].split(","):
                if row["Issue id"] in bugs and other.strip() in bugs and other.strip() != row["Issue id"]:
                    wanted[row["Issue id"]].add(other.strip())
    articles = [{"id": name, "title": row["Summary"], "body": row["Description"]} for name, row in bugs.items()]
    questions = {name: f"{bugs[name]['Summary']}\n{bugs[name]['Description']}" for name in wanted}
    return Set(articles, questions, wanted)


def intents(data: Path, n_questions: int | None) -> Set:
    """One article per intent with four fifths of its questions; the others are asked, or some of them."""
    with (data / BANKING).open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    random.Random(0).shuffle(rows)  # noqa: S311 (a draw, not a secret)
    n_held_out = len(rows) // 5
    tests = rows[:n_held_out][:n_questions]
    below: dict[str, list[str]] = defaultdict(list)
    for row in rows[n_held_out:]:
        below[row["category"]].append(row["text"])
    articles = [{"id": name, "title": "", "body": "\n\n".join(texts)} for name, texts in sorted(below.items())]
    questions = {f"q{number}": row["text"] for number, row in enumerate(tests)}
    return Set(articles, questions, {f"q{number}": {row["category"]} for number, row in enumerate(tests)})


def run(bench: Bench, engine: str, python: Path | None, each: Set) -> dict[str, float] | None:
    """Run one engine; None if it is not available or fails."""
    if python is None:
        return None
    with bench.scratch() as scratch:
        write_lines(scratch / "articles.jsonl", each.articles)
        write_lines(scratch / "questions.jsonl", [{"id": name, "text": text} for name, text in each.questions.items()])
        answer = scratch / "answer.json"
        own = ENVIRONMENTS[engine] == "project"
        cost = run_measured(
            [python, ENGINES / "passages.py", engine, scratch, answer], limit_s=LIMIT_S,
            environment=isolated(scratch, own=own, OMP_NUM_THREADS="1"), folder=scratch, scratch=scratch,
        )  # fmt: skip
        if not cost.complete:
            report(f"{engine}: {cost.failure}")
            return None
        return summary(json.loads(answer.read_text()), each, cost)


def write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    """Write JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def summary(found: dict[str, list[str]], each: Set, cost: Cost) -> dict[str, float]:
    """Mean share of a question's articles among the first k, without the question itself; and the cost."""

    def recall(name: str, k: int) -> float:
        places = [article for article in found[name] if article != name][:k]
        return len(each.wanted[name] & set(places)) / len(each.wanted[name])

    return {
        **{f"recall@{k}": round(mean(recall(name, k) for name in each.questions), 3) for k in KS},
        "cpu_s": round(cost.cpu_s, 1),
        "peak_mb": round(cost.peak_mb),
    }


if __name__ == "__main__":
    main()
