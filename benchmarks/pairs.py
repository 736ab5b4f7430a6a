"""`make bench-pairs`: how often a champion and next week's candidate differ, for SmolLM2 fine-tuned week by week.

Five weeks of public support questions are learned as the application learns them (`weeks.py`), each week from the base
and from the champion. Every week's model answers the same held-out questions with a routing line, and is compared with
that of the week before: d, the share of questions that exactly one of the two answers right, decides how many items a
verdict needs; q, the share that they answer differently, how many of them need a label. QUICK=1: three weeks of the toy
world, which proves that it runs. RECORD=1: write `results/pairs.md`, which `make bench-gates` judges too. The questions
are outside the repository (TUNEGATE_DATA, default ../shared/data).
"""

import os
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import toy, weeks
from benchmarks.gates.real_pairs import Pair
from benchmarks.labels import SETS, read_set
from benchmarks.measure import PROJECT, Bench, report, table
from benchmarks.toy import Row
from benchmarks.train.__main__ import SMOLLM2, base_model
from schemas.artifacts import ModelRef
from schemas.evaluation import DecodingSpec
from schemas.training import AdapterSpec, PromptSpec, TrainSpec
from tasks.model.base_model import fetch_base_model
from tasks.storage.sealed_folder import seal

N_WEEKS, PER_WEEK, N_HELD_OUT, SEED = 5, 260, 800, 1
QUICK_WEEKS, QUICK_PER_WEEK, QUICK_HELD_OUT = 3, 40, 60
POLICIES: Mapping[str, Mapping[str, Any]] = {
    "base": {"start": "base"},
    "champion, replay 0.2": {"start": "champion", "replay": 0.2},
}


@dataclass(frozen=True)
class World:
    """A base model, the tickets of each week, and the held-out ones."""

    name: str
    model: ModelRef
    weekly: Sequence[Sequence[Row]]
    held_out: Sequence[Row]
    settings: Mapping[str, Any]
    """Of each training."""
    decoding: DecodingSpec


def main() -> None:
    """Play the weeks of each policy, and compare each week's answers with those of the week before."""
    bench = Bench.begin("pairs", "torch", "transformers", "peft")
    began, found = time.monotonic(), []
    with bench.scratch() as folder:
        world = toy_world(folder) if bench.quick else bitext_world(folder)
        for policy in POLICIES:
            found += play(world, policy, folder)
    minutes = round((time.monotonic() - began) / 60, 1)
    rows = [
        [pair.candidate, pair.n, f"{100 * pair.delta:+.1f}", *(f"{100 * share:.1f}" for share in _shares(pair)),
         f"{pair.differing / max(1, pair.gained + pair.lost):.2f}"]
        for pair in found
    ]  # fmt: skip
    d, q = (mean(_shares(pair)[place] for pair in found) for place in (0, 1))
    bench.finish(
        "A champion and next week's candidate",
        table(["candidate, next to the week before", "questions", "delta", "d %", "q %", "q/d"], rows),
        {"world": world.name, "pairs": [asdict(pair) for pair in found], "discordance": round(d, 4),
         "differing": round(q, 4), "minutes": minutes},
        head=f"World `{world.name}`: {len(world.weekly)} weeks of {len(world.weekly[0])} tickets. Mean d "
        f"{100 * d:.1f} %, q {100 * q:.1f} %. Answers are routing lines; free text nearly always differs, so that q "
        "is near 100 % unless `evaluate.fields` says what of it counts.",
    )  # fmt: skip


def _shares(pair: Pair) -> tuple[float, float]:
    return pair.discordance, pair.differing_share


def play(world: World, policy: str, folder: Path) -> list[Pair]:
    """Train week by week; a pair for each week but the first."""
    champion: weeks.Champion | None = None
    before: list[str] | None = None
    found = []
    for week in range(1, len(world.weekly) + 1):
        spec = TrainSpec.model_validate({**world.settings, **POLICIES[policy], "seed": SEED})
        learned = [row for each in world.weekly[:week] for row in each]
        champion, seconds = weeks.fit(
            world.model, spec, champion, learned=learned, held_out=world.held_out, home=folder / f"{policy} {week}"
        )
        engine = weeks.engine_of(world.model, champion.trained, world.decoding)
        answers = weeks.answers_of(engine, world.held_out)
        right = mean(answer == row["reply"] for answer, row in zip(answers, world.held_out, strict=True))
        report(f"{policy}, week {week}: {seconds:.0f} CPU seconds of training, {100 * right:.1f} % right")
        if before is not None:
            found.append(pair_of(f"{policy}, week {week}", before, answers, [row["reply"] for row in world.held_out]))
        before = answers
    return found


def pair_of(name: str, champion: Sequence[str], candidate: Sequence[str], truth: Sequence[str]) -> Pair:
    """Compare two models' answers.

    >>> pair_of("b", ["x", "y", "z"], ["x", "n", "w"], ["x", "n", "n"])
    Pair(data='pairs', candidate='b', n=3, gained=1, lost=0, differing=2)
    """
    rights = [(new == wanted, old == wanted) for old, new, wanted in zip(champion, candidate, truth, strict=True)]
    return Pair(
        "pairs", name, len(truth), gained=sum(new and not old for new, old in rights),
        lost=sum(old and not new for new, old in rights),
        differing=sum(old != new for old, new in zip(champion, candidate, strict=True)),
    )  # fmt: skip


def bitext_world(folder: Path) -> World:
    """SmolLM2, and customers' requests with one of 27 intents."""
    path, text, label = SETS["bitext"]
    data = Path(os.environ.get("TUNEGATE_DATA") or PROJECT.parent / "shared" / "data") / path
    if not data.exists():
        sys.exit(f"pairs: {path} is not below {data.parents[1]}; set TUNEGATE_DATA")
    model = base_model(folder)
    rows = [_ticket(row["ticket_id"], row["body"], f"[{row['category']}]") for row in read_set(data, text, label)]
    random.Random(SEED).shuffle(rows)  # noqa: S311
    weekly, held_out = _divided(rows, n_weeks=N_WEEKS, per_week=PER_WEEK, n_held_out=N_HELD_OUT)
    settings = {
        "base_model": SMOLLM2, "max_length": 128, "batch_size": 8, "epochs": 1, "learning_rate": 2e-3,
        "allow_unusual_learning_rate": True, "save_every": 5000, "adapter": AdapterSpec(rank=16, alpha=32),
        "prompt": PromptSpec(), "threads": len(os.sched_getaffinity(0)),
    }  # fmt: skip
    return World(
        "bitext", model, weekly, held_out, settings,
        DecodingSpec(max_new_tokens=12, batch_size=32, threads=None, dtype="auto"),
    )  # fmt: skip


def toy_world(folder: Path) -> World:
    """The toy model, and tickets with one deciding word."""
    base = toy.build_base(folder / "base")
    out = folder / "model"
    out.mkdir()
    ref = fetch_base_model(uri=f"file:{base}", allow_download=False, root=folder, cache=folder, out=out)
    model = ref.model_copy(update={"digest": seal(out)})
    rows = toy.tickets(QUICK_WEEKS * QUICK_PER_WEEK + QUICK_HELD_OUT)
    weekly, held_out = _divided(rows, n_weeks=QUICK_WEEKS, per_week=QUICK_PER_WEEK, n_held_out=QUICK_HELD_OUT)
    settings = {
        "base_model": "file:base", "dtype": "float32", "threads": 1, "max_length": 64, "batch_size": 16, "epochs": 5,
        "learning_rate": 1.5e-3, "allow_unusual_learning_rate": True, "save_every": 5000,
        "adapter": AdapterSpec(rank=16, alpha=32), "prompt": PromptSpec(),
    }  # fmt: skip
    return World("toy", model, weekly, held_out, settings, weeks.DECODING)


def _ticket(name: Any, body: Any, reply: str) -> Row:
    return {"ticket_id": name, "customer_id": name, "thread_id": name, "subject": "", "body": body, "reply": reply}


def _divided(rows: Sequence[Row], *, n_weeks: int, per_week: int, n_held_out: int) -> tuple[list[list[Row]], list[Row]]:
    """Weeks of tickets, one an hour, and held-out ones that come after them."""
    start = datetime(2026, 6, 1, tzinfo=UTC)
    dated = [
        row | {"created_at": (start + timedelta(hours=place)).isoformat()}
        for place, row in enumerate(rows[: n_weeks * per_week + n_held_out])
    ]
    weekly = [dated[week * per_week : (week + 1) * per_week] for week in range(n_weeks)]
    return weekly, dated[n_weeks * per_week :]


if __name__ == "__main__":
    main()
