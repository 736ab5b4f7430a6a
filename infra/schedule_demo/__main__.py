"""Play the story of `weeks.py`: each Monday the export is written, `tunegate ops tick` decides, and agents work.

Every tick is a separate process, a fork of this one, which has imported the libraries. The clock is TUNEGATE_NOW.
With RECORD=1 the table is written to `benchmarks/results/schedule.md` and the chart to `docs/plots/weeks.svg`.
Usage: `python -m infra.schedule_demo [--base URI] [--tiny] [--story steady,quiet,...] [--out FOLDER]`.
"""

import argparse
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from ruamel.yaml import YAML

from flows.ledger.ledger import Ledger
from flows.workspace.servers import client_environment, ensure_prefect, stop_all
from infra.schedule_demo.chart import COLUMNS, POLICIES, chart, record, table
from infra.schedule_demo.weeks import EVENTS, FAILPOINTS, STORY, Row, Weeks, make_weeks
from schemas.artifacts import ChampionRef

PROJECT = Path(__file__).resolve().parents[2]
NAME = "replies"
RESULT = PROJECT / "benchmarks" / "results" / "schedule.md"
PICTURE = PROJECT / "docs" / "plots" / "weeks.svg"
TITLES = (*COLUMNS, *POLICIES)
KILLED = -9


class Demo:
    """One run of the demo, in its own folder."""

    def __init__(self, folder: Path, weeks: Weeks, *, tiny: bool, n_answers: int) -> None:
        self.folder, self.weeks, self.tiny, self.n_answers = folder, weeks, tiny, n_answers
        self.home = folder / ".tunegate"
        self.ledger = Ledger(self.home)
        self.quality: dict[tuple[str, int], float] = {}

    def play(self) -> list[list[object]]:
        """Play all weeks; return a row for each."""
        rows = []
        for week in range(1, len(self.weeks.story) + 1):
            since = time.monotonic()
            rows.append(self._week(week))
            say(table(TITLES, rows[-1:]) + f"   ({time.monotonic() - since:.0f} s)")
        return rows

    def _week(self, week: int) -> list[object]:
        event = self.weeks.story[week - 1]
        with (self.folder / "tickets.jsonl").open("w") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in self.weeks.export(week))
        now = self.weeks.monday(week).isoformat()
        if event in FAILPOINTS:
            code = self._tick(now, TUNEGATE_FAILPOINT=FAILPOINTS[event])
            say(f"== week {week}: killed at {FAILPOINTS[event]} (exit code {code}); the next tick continues")
        code = self._tick(now)
        tick = self.ledger.ticks(NAME)[-1]
        run = self.ledger.run(tick.run_id)
        decision, found = tick.decision, tick.decision.arrivals
        champion, candidate = self.ledger.champion(NAME), self._candidate_of(run.run_id)
        first = self.ledger.candidate(NAME, "1")
        shown = [champion, first.ref if first else None, candidate or self._latest]
        self._latest = candidate or self._latest
        values = [None if ref is None else self._quality(ref, week) for ref in shown]
        if champion is not None:
            self._agents(champion, week, now)
        return [
            week, event, "RUN" if decision.run else "SKIP", decision.code, found.n_new if found else None,
            found.n_edited if found else None, run.verdict or (run.status if decision.run else ""),
            f"v{champion.version}" if champion else "none", *values,
        ]  # fmt: skip

    _latest: ChampionRef | None = None

    def _candidate_of(self, run_id: str) -> ChampionRef | None:
        steps = {step.step: step.digest for step in self.ledger.steps(run_id)}
        found = (row.ref for row in self.ledger.candidates(NAME) if row.ref.trained.digest == steps.get("train"))
        return next(found, None) if "gate" in steps else None

    def _tick(self, now: str, **environ: str) -> int:
        def tick() -> int:
            from flows.cli.running import tick

            return tick(pipeline=NAME, cause="schedule", config=self.folder / "pipelines.yaml", as_json=False)

        return fork(tick, self.folder / "ticks.log", {"TUNEGATE_NOW": now, **environ})

    def _quality(self, ref: ChampionRef, week: int) -> float:
        """Return the share of the coming week's tickets that the model routes correctly in the right form, 0-1."""
        if (ref.version, week) not in self.quality:
            answers = self._answers(ref, week)
            right = [is_right(answer, row) for answer, row in zip(answers, self._tickets(week), strict=True)]
            self.quality[ref.version, week] = sum(right) / len(right)
        return self.quality[ref.version, week]

    def _tickets(self, week: int) -> list[Row]:
        return self.weeks.coming(week, self.n_answers)

    def _answers(self, ref: ChampionRef, week: int) -> list[str]:
        path = self.folder / f"answers-v{ref.version}-week{week}.json"

        def answer() -> int:
            from tasks.release.serve import load_bundle

            served = load_bundle(ref.bundle.root, base=ref.model.root)
            tickets = [{"subject": row["subject"], "body": row["body"]} for row in self._tickets(week)]
            path.write_text(json.dumps(served.answer(tickets)))
            return 0

        if not path.exists() and fork(answer, self.folder / "answers.log", {}) != 0:
            raise SystemExit(f"v{ref.version} did not answer; see {self.folder / 'answers.log'}")
        found: list[str] = json.loads(path.read_text())
        return found

    def _agents(self, champion: ChampionRef, week: int, now: str) -> None:
        """Let agents send correct answers, edit wrong ones in the right form, and reject the rest."""
        lines = []
        for row, answer in zip(self._tickets(week), self._answers(champion, week), strict=True):
            line = {"ticket_id": row["ticket_id"], "version": champion.version, "at": now, "outcome": "accepted"}
            if not is_right(answer, row):
                formed = re.search(r"\[[a-z][^\]]*\]", answer) is not None
                line |= {"outcome": "edited", "reply": row["reply"]} if formed else {"outcome": "rejected"}
            lines.append(json.dumps(line) + "\n")
        path = self.folder / f"agents-week{week}.jsonl"
        path.write_text("".join(lines))

        def feedback() -> int:
            from flows.cli.feedback import feedback

            return feedback(pipeline=NAME, file=path, config=self.folder / "pipelines.yaml", as_json=False)

        if fork(feedback, self.folder / "feedback.log", {}) != 0:
            raise SystemExit(f"the feedback was not ingested; see {self.folder / 'feedback.log'}")


def is_right(answer: str, row: Row) -> bool:
    """Return whether the answer's routing line is correct."""
    wanted = re.search(r"\[[^\]]+\]", row["reply"])
    return wanted is not None and wanted[0] in answer


def fork(work: Callable[[], int], log: Path, environ: Mapping[str, str]) -> int:
    """Run it in a separate process; return its exit code, or the negative number of the signal that ended it."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.environ.update(environ)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def declare(folder: Path, *, base: str | None, tiny: bool, steps: int, per_week: float) -> None:
    """Write the demo's pipelines.yaml: `support-replies` of this checkout with ticks and a smaller budget."""
    document = YAML(typ="safe").load((PROJECT / "pipelines.yaml").read_text())
    one = document["pipelines"]["support-replies"]
    one["source"] = {"kind": "files", "paths": ["tickets.jsonl"]}
    one["split"] = {"by_time": False, "test_fraction": 0.3, "validation_fraction": 0.02}
    one["register"] = {"name": NAME}
    one["feedback"] = {"learn": True, "min_acceptance": 0.2, "min_suggestions": 20}
    one["schedule"] = {
        "cron": "0 5 * * 1",
        "retrain": {
            "min_new": round(0.55 * per_week), "min_held_out": 20, "cooldown_days": 6,
            "drift": {"min_new": round(0.2 * per_week), "window": round(1.5 * per_week)},
        },
    }  # fmt: skip
    one["gates"] = {
        "confidence": 0.8, "min_items": 20, "forgetting": None, "round_trip": None,  # what 40 items can show
        "rules": [
            {"metric": "exact", "change_threshold": {"against": "champion", "mode": "refresh", "margin": 0.05}},
            {"metric": "format", "value_threshold": 0.5},
        ],
    }  # fmt: skip
    if tiny:
        one["curate"]["steps"] = [
            {"uses": "redact", "order_numbers": [r"NB-\d{5}"]},
            {"uses": "rule", "name": "has_routing", "keep": "category is not null and reply is not null"},
            {"uses": "dedup"},
        ]
        one["train"] = {
            "method": "full", "base_model": base, "dtype": "float32", "learning_rate": 4e-3, "batch_size": 16,
            "allow_unusual_learning_rate": True, "max_length": 96, "overflow": "truncate_left", "max_steps": steps,
            "epochs": 20, "save_every": 60, "validate_every": 1000, "threads": 1, "seed": 1, "max_examples": 400,
            "prompt": {"user": "{subject}", "answer": "{reply}"},
        }  # fmt: skip
        one["evaluate"] = {
            "max_items": 40, "max_new_tokens": 16, "arms": ["zero_shot"], "threads": 1, "batch_size": 40,
            "fields": r"\[(?P<category>[a-z-]+)\]",
        }  # fmt: skip
    else:
        one["train"] |= {"max_examples": 320, **({"base_model": base} if base else {})}
        one["evaluate"] |= {"max_items": 48, "choose": "newest", "batch_size": 48, "arms": ["zero_shot", "few_shot"]}
        one["evaluate"].pop("abstain")  # a week has too few tickets for calibration tickets besides
    defaults = {} if tiny else document["defaults"]
    with (folder / "pipelines.yaml").open("w") as stream:
        YAML().dump({"version": 1, "defaults": defaults, "pipelines": {NAME: one}}, stream)


def main() -> int:
    """Play the story and print the table; return 0 if nothing failed."""
    parser = argparse.ArgumentParser(prog="python -m infra.schedule_demo", description=__doc__.splitlines()[0])
    parser.add_argument("--base", help="base model URI; SmolLM2-135M if not given")
    parser.add_argument("--tiny", action="store_true", help="a very small base: replies are only the routing line")
    parser.add_argument("--quick", action="store_true", help="with --tiny: half the training, for tests")
    parser.add_argument("--story", default=",".join(STORY), help=f"weeks: {', '.join(EVENTS)}")
    parser.add_argument("--tickets", type=int, help="number of tickets of all weeks")
    parser.add_argument("--out", type=Path, default=PROJECT / ".tunegate" / "demo-schedule")
    options = parser.parse_args()
    story = tuple(options.story.split(","))
    if unknown := set(story) - set(EVENTS):
        parser.error(f"no such weeks: {', '.join(sorted(unknown))}")
    n_tickets = options.tickets or (110 if options.tiny else 150) * (len(story) + 1)
    folder = options.out.absolute() / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    weeks = make_weeks(story, n_tickets=n_tickets, short=options.tiny)
    steps = 60 if options.quick else 120
    declare(folder, base=options.base, tiny=options.tiny, steps=steps, per_week=n_tickets / (len(story) + 1))
    server = ensure_prefect(folder / ".tunegate")
    os.environ.update(client_environment(server))
    _import_all()
    try:
        rows = Demo(
            folder, weeks, tiny=options.tiny, n_answers=(6 if options.quick else 16) if options.tiny else 32
        ).play()
    finally:
        stop_all(folder / ".tunegate")
    text = table(TITLES, rows)
    (folder / "weeks.svg").write_text(chart(rows))
    (folder / "weeks.txt").write_text(text + "\n")
    if os.environ.get("RECORD"):
        from benchmarks import records
        from benchmarks.measure import describe_machine

        machine = describe_machine() | {"code": records.fingerprint(records.declared()["schedule"].code)}
        RESULT.write_text(record(rows, machine=machine, command="RECORD=1 make demo-schedule"))
        PICTURE.write_text(chart(rows))
    sys.stdout.write(f"{text}\n\n{folder / 'weeks.svg'}\n")
    return 0 if all(row[6] != "FAILED" for row in rows) else 1


def _import_all() -> None:
    """Import the libraries before the first fork, so that no fork has to."""
    import importlib

    for name in ("torch", "transformers", "peft", "mlflow", "sklearn.linear_model", "scipy.stats", "prefect",
                 "flows.pipeline", "flows.cli.running"):  # fmt: skip
        importlib.import_module(name)


def say(text: str) -> None:
    """Write progress to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
