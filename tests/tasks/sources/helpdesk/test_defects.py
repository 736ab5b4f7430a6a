"""The demo's three pipelines differ in the replies of the first six weeks only, so they share one held-out set."""

from pathlib import Path
from typing import Any, Literal

from schemas.artifacts import Splits
from schemas.curation import DecontaminateSpec, SplitSpec, TableSpec
from schemas.curation_steps import DedupStep, RedactStep, RuleStep
from schemas.source import GeneratedSource
from tasks.curate.decontaminate import decontaminate
from tasks.curate.dedup import drop_duplicates
from tasks.curate.redact import redact_tickets
from tasks.curate.rules import apply_rules
from tasks.curate.split import split_tickets
from tasks.curate.validate import validate_tickets
from tests.support.synced import extract

Defect = Literal["none", "swapped_labels", "broken_format"]
KEEP = (
    RuleStep(uses="rule", name="has_reply", keep="reply is not null"),
    RuleStep(uses="rule", name="body_length", keep="length(body) between 30 and 1500"),
    RuleStep(uses="rule", name="reply_length", keep="length(reply) between 40 and 1200"),
)


def curate(defect: Defect, root: Path, new_folder: Any) -> Splits:
    source = GeneratedSource(kind="generated", n_tickets=500, n_customers=65, defect=defect)
    tickets = extract(source, root)
    tickets = validate_tickets(tickets=tickets, table=TableSpec(), out=new_folder())
    tickets = redact_tickets(tickets=tickets, step=RedactStep(uses="redact"), out=new_folder())
    tickets = apply_rules(tickets=tickets, rules=KEEP, out=new_folder())
    tickets = drop_duplicates(tickets=tickets, step=DedupStep(uses="dedup"), out=new_folder())
    splits = split_tickets(tickets=tickets, split=SplitSpec(), out=new_folder())
    return decontaminate(splits=splits, spec=DecontaminateSpec(), out=new_folder())


def test_defects_of_the_early_weeks_leave_every_held_out_byte_as_it_is(tmp_path: Path, new_folder: Any) -> None:
    sound = curate("none", tmp_path, new_folder)
    assert sound.n_train >= 0.6 * 500
    assert sound.n_test >= 40
    faults: tuple[Defect, ...] = ("swapped_labels", "broken_format")
    for defect in faults:
        faulty = curate(defect, tmp_path, new_folder)
        assert faulty.test.read_bytes() == sound.test.read_bytes()
        assert faulty.train.read_bytes() != sound.train.read_bytes()
