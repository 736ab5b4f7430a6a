"""Whom a person means by a customer's id: the id itself, and the pseudonyms that the pipelines make of it."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.curation_steps import RedactStep
from schemas.pipeline import PipelineSpec
from tasks.curate.redaction.pseudonyms import load_pseudonyms
from tasks.forget.hashes import Forgotten, KeyedHash


def names_of(customer: str, specs: Iterable[PipelineSpec]) -> tuple[str, ...]:
    """The id as the source writes it, then each pseudonym under which a pipeline's tables hold the customer.

    Raises:
        ConfigError: TG0190, a pipeline makes pseudonyms, and their key is not in the environment.
    """
    found = [customer]
    for spec in specs:
        name = customer
        for step in spec.curate.steps:
            if isinstance(step, RedactStep) and "customer_id" in step.pseudonymise:
                pseudonyms = load_pseudonyms(step)
                if pseudonyms is not None:
                    name = pseudonyms.of_all([name])[0] or name
        found.append(name)
    return tuple(dict.fromkeys(found))


def hashes_of(customer: str, specs: Iterable[PipelineSpec], hashes: KeyedHash) -> tuple[str, Forgotten]:
    """The tombstone's id of a customer, and the hashes to find them by."""
    names = names_of(customer, specs)
    owners = [hashes.of("customer", name) for name in names]
    return owners[0], Forgotten(hashes, owners=owners, names=names)
