"""`make bench-weeks`: eight weekly trainings, each from the base or from the champion, in the toy world.

A product is launched in week 3 and the first one is not sold any more from week 5 on. Every policy sees the same
tickets; each training is the application's own, from the ticket table on: `encode_examples`, `continue_examples`,
`run_rank`. Every candidate becomes champion, so that the policies differ by where their trainings start and by nothing
else. After each week it answers the coming week's tickets, tickets of the product that is gone, and general questions.
QUICK=1: four weeks, one seed. RECORD=1: write `results/weeks.md`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import mean
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import toy
from benchmarks.measure import Bench, table
from benchmarks.toy import Row
from schemas.artifacts import DatasetRef, ModelRef, PromptSet, RowCounts, Splits, TrainedRef
from schemas.evaluation import DecodingSpec
from schemas.training import AdapterSpec, PromptSpec, TrainSpec
from tasks.assess.suite import build_suite, is_right
from tasks.curate.rows import TICKETS_ARROW, write_tickets
from tasks.model.answer_engine import Engine, Item
from tasks.model.base_model import fetch_base_model, load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.model.chat_format import encode_examples
from tasks.model.continue_examples import continue_examples
from tasks.model.generate import read_items
from tasks.storage.sealed_folder import seal, verify
from tasks.train.job import FINAL, ProgressLog, TrainJob
from tasks.train.launch import check_start
from tasks.train.part import run_rank

SHARES: Sequence[Mapping[str, int]] = (
    *({"Sofa": 60, "Desk": 20},) * 2,
    *({"Sofa": 40, "Desk": 20, "Lamp": 20},) * 2,
    *({"Desk": 20, "Lamp": 60},) * 5,
)
"""Tickets of each week by product; the last week is only answered."""
GONE = "Sofa"
N_GONE = 60
"""Tickets of the product that is gone, which nothing is trained on."""
POLICIES: Mapping[str, Mapping[str, Any]] = {
    "base": {"start": "base"},
    "champion, replay 0": {"start": "champion", "replay": 0.0},
    "champion, replay 0.2": {"start": "champion", "replay": 0.2},
}
SEEDS, WEEKS, QUICK_WEEKS = (1, 2), 8, 4
DECODING = DecodingSpec(max_new_tokens=12, batch_size=64, threads=1, dtype="float32")


@dataclass(frozen=True)
class Week:
    """One policy's week."""

    policy: str
    seed: int
    week: int
    n_examples: int
    n_steps: int
    n_tokens: int
    seconds: float
    """CPU seconds of the training, with loading the model and saving the adapter."""
    coming: float
    """Share of the coming week's tickets that are answered right, 0-1, as are the next two."""
    gone: float
    general: float


@dataclass(frozen=True)
class Place:
    """What all policies share."""

    folder: Path
    model: ModelRef
    suite: PromptSet


@dataclass(frozen=True)
class Champion:
    """The last training of a policy, and what it was trained on."""

    trained: TrainedRef
    dataset: DatasetRef


def main() -> None:
    """Play the weeks of each policy and seed."""
    bench = Bench.begin("weeks", "torch", "transformers", "peft")
    began, n_weeks, seeds = time.monotonic(), WEEKS, SEEDS
    if bench.quick:
        n_weeks, seeds = QUICK_WEEKS, SEEDS[:1]
    played: list[Week] = []
    with bench.scratch() as folder:
        place = _prepare(folder)
        play(place, "base", None, seed=0, week=1)  # discarded: it loads the libraries
        for seed in seeds:
            for name in POLICIES:
                champion = None
                for week in range(1, n_weeks + 1):
                    one, champion = play(place, name, champion, seed=seed, week=week)
                    played.append(one)
                    print(one, flush=True)
    figures = {name: summary([each for each in played if each.policy == name]) for name in POLICIES}
    bench.finish(
        "Weekly trainings from the base and from the champion",
        f"{total_table(figures)}\n\n{weekly_table(played, tuple(POLICIES), n_weeks)}",
        {"world": "toy", "weeks": n_weeks, "seeds": len(seeds), "policies": figures,
         "minutes": round((time.monotonic() - began) / 60, 1)},
        head=f"World `toy`: a random model of 100,000 weights that was taught a few general "
        f"answers; rank 16, ten epochs, {len(seeds)} seeds, of which the figures are means. `coming`, `gone` and "
        "`general` are shares of right answers. Seconds are CPU seconds of all trainings of one seed.",
    )  # fmt: skip


def _prepare(folder: Path) -> Place:
    base, model, suite = toy.build_base(folder / "base"), folder / "model", folder / "suite"
    model.mkdir()
    suite.mkdir()
    ref = fetch_base_model(uri=f"file:{base}", allow_download=False, root=folder, cache=folder, out=model)
    questions = build_suite(suite="general", max_items=toy.SUITE_ITEMS, seed=0, format="instruction", out=suite)
    return Place(folder, ref.model_copy(update={"digest": seal(model)}), questions)


def tickets_of(seed: int) -> list[list[Row]]:
    """The tickets of each week, in the order of time; one list more than there are weeks."""
    source: dict[str, list[Row]] = {}
    for row in toy.tickets(6000, seed=seed):
        source.setdefault(row["product"], []).append(row)
    start, number, weeks = datetime(2026, 6, 1, tzinfo=UTC), 0, []
    for week, shares in enumerate(SHARES):
        rows = [source[product].pop() for product, count in sorted(shares.items()) for _ in range(count)]
        rows.sort(key=lambda row: str(row["ticket_id"]))  # mixes the products
        placed = []
        for place, row in enumerate(rows):
            name = f"w{number:05}"
            created = start + timedelta(weeks=week, hours=place)
            placed.append(
                row | {"ticket_id": name, "customer_id": name, "thread_id": name, "created_at": created.isoformat()}
            )
            number += 1
        weeks.append(placed)
    return weeks


def gone_tickets(seed: int) -> list[Row]:
    """Tickets of the product that is gone, drawn from another seed than the trained ones."""
    return [row for row in toy.tickets(400, seed=seed + 1000) if row["product"] == GONE][:N_GONE]


def play(place: Place, policy: str, champion: Champion | None, *, seed: int, week: int) -> tuple[Week, Champion]:
    """Train on the tickets up to this week as the policy says, and let the new champion answer."""
    weeks, spec = tickets_of(seed), _spec(policy, seed)
    learned = [row for each in weeks[:week] for row in each]
    home = place.folder / f"{seed} {policy} {week}"
    candidate, seconds = fit(place.model, spec, champion, learned=learned, held_out=weeks[week], home=home)
    trained, engine = candidate.trained, engine_of(place.model, candidate.trained, DECODING)
    answered = Week(
        policy, seed, week, candidate.dataset.n_train, trained.n_steps, trained.n_tokens, seconds,
        coming=_right(engine, weeks[week]), gone=_right(engine, gone_tickets(seed)), general=_general(engine, place),
    )  # fmt: skip
    return answered, candidate


def fit(
    model: ModelRef, spec: TrainSpec, champion: Champion | None, *, learned: Sequence[Row], held_out: Sequence[Row],
    home: Path,
) -> tuple[Champion, float]:  # fmt: skip
    """Train as the application does, from the ticket table on; the result, and the CPU seconds of the training.

    Args:
        champion: Where a spec with `start: champion` starts; None before the first.
        learned: All tickets so far.
        home: Folder to create, named after the training.
    """
    splits = _splits(home / "splits", learned, held_out)
    start = None if spec.start == "base" or champion is None else champion
    (home / "encoded").mkdir()
    limit = {} if start is None else {"max_examples": None}
    dataset = encode_examples(
        splits=splits, model=model, encoding=spec.encoding().model_copy(update=limit), out=home / "encoded"
    )
    if start is not None:
        check_start(start.trained, model, spec)
        (home / "chosen").mkdir()
        dataset = continue_examples(
            pool=dataset, learned=start.dataset, splits=splits, replay=spec.replaying(), out=home / "chosen"
        )
    scratch = home / "scratch"
    scratch.mkdir()
    job = TrainJob(
        dataset=dataset.model_copy(update={"digest": home.name}), model=model, spec=spec,
        start=start.trained if start else None, scratch=scratch, threads=spec.threads or 1,
    )  # fmt: skip
    began = time.process_time()
    run_rank(job, stop=lambda: False, log=ProgressLog(scratch / "progress.jsonl"))
    seconds = time.process_time() - began
    return Champion(_trained(scratch / FINAL, model), dataset), seconds


def engine_of(model: ModelRef, trained: TrainedRef, decoding: DecodingSpec) -> Engine:
    """The engine with which a trained model answers."""
    return Engine.load(model, trained, decoding, ChatCodec.of(load_tokenizer(model), "instruction"), [])


def _spec(policy: str, seed: int) -> TrainSpec:
    settings = {
        "base_model": "file:base", "dtype": "float32", "threads": 1, "max_length": 64, "batch_size": 16, "epochs": 10,
        "learning_rate": 1.5e-3, "allow_unusual_learning_rate": True, "save_every": 5000,
        "adapter": AdapterSpec(rank=16, alpha=32), "prompt": PromptSpec(), "seed": seed,
    }  # fmt: skip
    return TrainSpec.model_validate({**settings, **POLICIES[policy]})


def _splits(folder: Path, train: Sequence[Row], test: Sequence[Row]) -> Splits:
    folder.mkdir(parents=True)
    for name, rows in (("train", train), ("test", test), ("validation", [])):
        found = [row | {"created_at": datetime.fromisoformat(row["created_at"]).replace(tzinfo=None)} for row in rows]
        columns: dict[str, Any] = {
            each.name: pa.array([row.get(each.name) for row in found], each.type) for each in TICKETS_ARROW
        }
        columns["source"] = ["tickets"] * len(rows)
        columns["source_line"] = list(range(len(rows)))
        write_tickets(pa.table(columns, schema=TICKETS_ARROW), folder, name=f"{name}.parquet")
    counts = RowCounts(n_in=len(train) + len(test), n_out=len(train) + len(test))
    return Splits(root=folder, rows=counts, n_train=len(train), n_validation=0, n_test=len(test))


def _trained(root: Path, model: ModelRef) -> TrainedRef:
    training = orjson.loads((root / "training.json").read_bytes())
    figures = {name: training[name] for name in ("n_trainable", "n_steps", "n_tokens", "train_loss")}
    return TrainedRef(
        root=root, digest=verify(root), method="lora", format="instruction", base_digest=model.digest, **figures
    )


def _right(engine: Engine, rows: Sequence[Row]) -> float:
    """Share of the tickets that are answered with their own reply."""
    return mean(float(text == row["reply"]) for text, row in zip(answers_of(engine, rows), rows, strict=True))


def answers_of(engine: Engine, rows: Sequence[Row]) -> list[str]:
    """The answer to the body of each ticket."""
    codec = engine.codec
    items = [
        Item(str(number), codec.prompt_ids([{"role": "user", "content": row["body"]}]), codec.answer_ids(row["reply"]))
        for number, row in enumerate(rows)
    ]
    answers = {answer.item_id: answer.text.strip() for answer in engine.answer(items)}
    return [answers[str(number)] for number in range(len(rows))]


def _general(engine: Engine, place: Place) -> float:
    """Share of the general questions that are answered right."""
    details = pq.read_table(place.suite.root / "items.parquet").to_pylist()
    patterns = {row["item_id"]: row["pattern"] for row in details}
    answers = engine.answer(read_items(place.suite, engine.codec))
    return mean(float(is_right(answer.text, patterns[answer.item_id])) for answer in answers)


def summary(weeks: Sequence[Week]) -> dict[str, float]:
    """Cost of all weeks of one seed, and the answers after the last week, as means over the seeds."""
    n_seeds, last = len({each.seed for each in weeks}), max(each.week for each in weeks)
    ended = [each for each in weeks if each.week == last]
    return {
        "steps": round(sum(each.n_steps for each in weeks) / n_seeds, 1),
        "tokens": round(sum(each.n_tokens for each in weeks) / n_seeds, 1),
        "seconds": round(sum(each.seconds for each in weeks) / n_seeds, 1),
        "coming": round(mean(each.coming for each in weeks), 4),
        "gone": round(mean(each.gone for each in ended), 4),
        "general": round(mean(each.general for each in ended), 4),
    }


def total_table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """One row per policy: the cost of all weeks, the mean over the coming weeks, and what is left at the end."""
    names = ("policy", "steps", "tokens", "CPU-s", "coming week, mean", "gone product at the end", "general at the end")
    rows = [
        [
            name, f"{each['steps']:.0f}", f"{each['tokens']:,.0f}", f"{each['seconds']:.1f}",
            *(f"{100 * each[part]:.1f} %" for part in ("coming", "gone", "general")),
        ]
        for name, each in figures.items()
    ]  # fmt: skip
    return table(names, rows)


def weekly_table(played: Sequence[Week], names: Sequence[str], n_weeks: int) -> str:
    """Right answers of each policy per week: the coming week's tickets / the gone product / general questions."""
    rows = []
    for week in range(1, n_weeks + 1):
        cells = []
        for name in names:
            mine = [each for each in played if each.week == week and each.policy == name]
            shares = (mean(getattr(each, part) for each in mine) for part in ("coming", "gone", "general"))
            cells.append(" / ".join(f"{100 * share:.0f}" for share in shares))
        rows.append([week, *cells])
    return table(["week, % coming / gone / general", *names], rows)


if __name__ == "__main__":
    main()
