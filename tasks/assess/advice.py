"""Prompting, retrieval, QLoRA, LoRA or full? The conclusion from the declared rules.

Knows nothing of ledgers and files; `flows/advice.py` gathers the evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from tasks.assess.advice_evidence import Evidence, Rule, Said
from tasks.assess.advice_rules import RULES

Answer = Literal["prompting", "retrieval", "qlora", "lora", "full", "curate", "not known"]


@dataclass(frozen=True)
class Reason:
    """One rule and what it said."""

    rule: str
    question: str
    says: str
    evidence: str
    threshold: str
    source: str
    change: str
    get: str


@dataclass(frozen=True)
class Advice:
    """The answer, every rule's word, and what is missing."""

    pipeline: str
    run_id: str | None
    answer: Answer
    sentence: str
    reasons: tuple[Reason, ...]
    missing: tuple[Reason, ...]


def conclude(known: Evidence) -> Advice:
    """Ask every rule, then take the first conclusion that the evidence carries.

    Prompting first: what is good enough without a training needs none. Then what was measured, and only where nothing
    was, what data and memory allow to try.
    """
    said = {rule.name: (rule, rule.ask(known)) for rule in RULES}
    answer, sentence = _answer(known, {name: each for name, (_, each) in said.items()})
    reasons = tuple(_reason(rule, each) for rule, each in said.values())
    return Advice(
        pipeline=known.pipeline, run_id=known.run_id, answer=answer, sentence=sentence,
        reasons=tuple(reason for reason in reasons if reason.says != "missing"),
        missing=tuple(reason for reason in reasons if reason.says == "missing"),
    )  # fmt: skip


def _answer(known: Evidence, said: dict[str, Said]) -> tuple[Answer, str]:
    says = {name: each.says for name, each in said.items()}
    extra = " ".join(_asides(known, says))
    method = _method(says)
    if says["prompting"] in ("prompting", "retrieval"):
        arm: Answer = "retrieval" if says["prompting"] == "retrieval" else "prompting"
        told = f"{known.best_prompting} meets every limit, so nothing has to be trained."
        if says["tuned"] == "tuning" and known.tuned is not None:
            gain = f"{known.tuned.difference:+.3f}"
            told += f" A tuned model is better still (by {gain}): worth it where that, or a shorter prompt, is."
        return arm, _join(told, extra)
    if says["tuned"] == "tuning":
        if method is None:
            return "not known", _join("Tuning is better than prompting; which method fits is not known.", extra)
        told = "Full tuning is due: adapters were tried and have more to learn" if method == "full" else (
            f"Tuning is shown to be better than prompting; {method} is the first rung that fits the memory"
        )  # fmt: skip
        return method, _join(f"{told}.", extra)
    if "curate" in (says["quality"], says["form"]):
        return "curate", _join("Before anything else is trained, curate: the data are the lever here.", extra)
    if says["tuned"] == "prompting":
        arm = "retrieval" if known.best_prompting == "retrieval" else "prompting"
        return arm, _join(f"The tuned model is worse than {known.best_prompting}; stay with that.", extra)
    if says["tuned"] == "more items":
        return "not known", _join(
            "Tuning is not shown to be better than prompting, nor worse: more held-out items would tell.", extra
        )
    if says["volume"] == "more tickets":
        return "prompting", _join("There are too few tickets to learn from; a prompt can show as many.", extra)
    if says["volume"] == "enough" and method is not None:
        return method, _join(f"Not measured yet; data and memory allow {method}, the cheapest rung to try.", extra)
    return "not known", _join("Too little is recorded to say.", extra)


def _method(says: Mapping[str, str]) -> Literal["qlora", "lora", "full"] | None:
    if says["full"] == "full":
        return "full"
    return "lora" if says["memory"] == "lora" else "qlora" if says["memory"] == "qlora" else None


def _asides(known: Evidence, says: Mapping[str, str]) -> Iterator[str]:
    """What goes with any answer."""
    if says["cost"] == "API":
        yield "At this volume the cheapest API costs less than a card: ask it too (evaluate.endpoint) before you rent."
    if says["retrieval"] == "retrieval" and known.best_prompting != "retrieval":
        yield "Examples chosen per ticket help; keep retrieval in mind."
    if says["items"] == "more items":
        yield "The held-out items are too few to promote anything."
    if says["memory"] == "smaller base":
        yield "No method fits a known card: take a smaller base model."


def _join(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _reason(rule: Rule, said: Said) -> Reason:
    return Reason(
        rule=rule.name, question=rule.question, says=said.says, evidence=said.evidence, threshold=rule.threshold,
        source=rule.source, change=rule.change, get=said.get,
    )  # fmt: skip
