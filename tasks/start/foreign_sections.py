"""A translated file as the sections of pipelines.yaml, each setting with the key it came from.

Called by `tasks/start/foreign.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.start.draft import Draft
from tasks.start.sections import EMBEDDED
from tasks.start.sizes import MARGIN
from tasks.start.yaml_out import Item, Items, Key, Remark, Section

_ORDER = ("method", "format", "prompt", "adapter", "quantization", "dtype", "learning_rate")


def file_of(draft: Draft, *, kind: str, name: str) -> Section:
    """The whole file."""
    return Section(
        (
            Remark(f"Translated by `tunegate init` from settings of {kind}; what is not here is named below."),
            Remark("  tunegate validate"),
            Remark(f"  tunegate plan {name}"),
            Remark(""),
            *_fates(draft),
            Key("version", 1),
            Remark(""),
            Key("pipelines", Section((Key(name, Section(tuple(_pipeline(draft, name)))),))),
        )
    )


def _fates(draft: Draft) -> Iterator[Remark]:
    for each in draft.fates:
        if each.outcome == "not_supported":
            yield Remark(f"not supported: {each.key}: {each.told}")


def _pipeline(draft: Draft, name: str) -> Iterator[Key | Remark]:
    completion = draft.settings.get("train.format") == "completion"
    yield Key("source", Section(tuple(_source(draft))))
    yield Remark("")
    steps = [Item({"uses": "redact"})]
    if not completion:
        steps.append(Item({"uses": "rule", "name": "has_reply", "keep": "reply is not null"}))
    yield Key("curate", Section((Key("steps", Items((*steps, Item({"uses": "dedup"})))),)))
    yield Remark("")
    yield Key("split", Section(tuple(_split(draft))))
    yield Remark("")
    yield Key("train", Section(tuple(_train(draft))))
    yield Remark("")
    yield Key("evaluate", Section(tuple(_evaluate(draft))))
    yield Remark("")
    yield Key("gates", Section(tuple(_gates("heldout_loss" if completion else "chrf"))))
    yield Remark("")
    yield Key("register", Section((Key("name", name),)))


def _source(draft: Draft) -> Iterator[Key | Remark]:
    source: dict[str, Any] | None = draft.settings.get("source")
    if source is None:
        yield Remark("CHECK: no dataset could be taken over; the generated help desk stands here until you name files")
        yield Key("kind", "generated")
        return
    for key, value in source.items():
        if value not in (None, {}):
            yield Key(key, value)
    if source["kind"] == "hf" and "revision" not in source:
        yield Remark("CHECK: a dataset of the hub needs `revision: <40 hex digits>` and `allow_download: true`")


def _split(draft: Draft) -> Iterator[Key]:
    yield Key("test_fraction", 0.2, "what the gate judges by; the trainer has no such thing")
    if (share := draft.settings.get("split.validation_fraction")) is not None:
        yield Key("validation_fraction", share, draft.origin["split.validation_fraction"])
    yield Key("by_time", False, "such datasets have no times; with `created_at` mapped, held-out is later than trained")


def _train(draft: Draft) -> Iterator[Key | Remark]:
    if "train.base_model" not in draft.settings:
        yield Key("base_model", EMBEDDED, "CHECK: stands in for the model of the file, whose commit is not known")
    tree: dict[str, Any] = {}
    for path, value in draft.settings.items():
        if path.startswith("train."):
            tree[path.removeprefix("train.")] = value
    sections: dict[str, list[Key]] = {}
    keys: dict[str, Key] = {}
    for path, value in tree.items():
        head, _, rest = path.partition(".")
        origin = draft.origin.get(f"train.{path}", "")
        key = Key(rest or head, value, "" if origin == (rest or head) else origin)
        if rest:
            sections.setdefault(head, []).append(key)
        else:
            keys[head] = key
    keys |= {head: Key(head, Section(tuple(inner))) for head, inner in sections.items()}
    yield from sorted(keys.values(), key=_place)


def _place(key: Key) -> tuple[int, str]:
    if key.name == "base_model":
        return -1, ""
    return (_ORDER.index(key.name), "") if key.name in _ORDER else (len(_ORDER), key.name)


def _evaluate(draft: Draft) -> Iterator[Key]:
    for path, value in draft.settings.items():
        if path.startswith("evaluate."):
            yield Key(path.removeprefix("evaluate."), value, draft.origin.get(path, ""))
    yield Key("arms", ["zero_shot", "few_shot"])
    yield Key("routing_field", None, "no label: the answer as a whole is judged")


def _gates(metric: str) -> Iterator[Key | Remark]:
    yield Remark("The trainer judges nothing; these rules do. `tunegate plan` says how many items each needs.")
    rules: tuple[Mapping[str, Any], ...] = (
        {"metric": metric, "change_threshold": {"against": "champion", "mode": "refresh", "margin": MARGIN}},
        {"metric": metric, "change_threshold": {"against": "best_baseline", "mode": "improve"}},
    )
    yield Key("rules", Items(tuple(Item(rule) for rule in rules)))
