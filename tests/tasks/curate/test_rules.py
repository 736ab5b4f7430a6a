"""Rules in order, NULL is not kept, losers keep the rule's name, and errors name the rule without ticket text."""

from typing import Any

import pytest

from schemas.curation_steps import RuleStep
from schemas.errors import ConfigError, TunegateError
from tasks.curate.rules import apply_rules


def rules(**keep: str) -> tuple[RuleStep, ...]:
    return tuple(RuleStep(uses="rule", name=name, keep=sql) for name, sql in keep.items())


def test_the_first_rule_a_row_fails_takes_it_and_null_is_not_kept(
    make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    tickets = make_tickets(
        [
            {"ticket_id": "kept", "body": "long enough", "reply": "yes"},
            {"ticket_id": "no-reply", "body": "x", "reply": None},
            {"ticket_id": "short", "body": "x", "reply": "yes"},
            {"ticket_id": "null", "body": None, "reply": "yes"},
        ]
    )
    step = rules(has_reply="reply is not null", body_length="length(body) > 3")
    result = apply_rules(tickets=tickets, rules=step, out=new_folder())
    assert list(rows_of(result.tickets)) == ["kept"]
    removed = rows_of(result.removed)
    assert {name: row["code"] for name, row in removed.items()} == {
        "no-reply": "has_reply",
        "null": "body_length",
        "short": "body_length",
    }
    assert removed["short"]["outcome"] == "dropped"
    assert removed["short"]["reason"] == "not (length(body) > 3)"
    assert removed["short"]["source_line"] == 3
    assert result.notes == {"dropped_has_reply": 1, "dropped_body_length": 2}
    assert (result.rows.n_in, result.rows.n_out, result.rows.n_dropped) == (4, 1, 3)


def test_an_earlier_rule_guards_a_later_one(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    tickets = make_tickets([{"ticket_id": "a", "reference": "12"}, {"ticket_id": "b", "reference": "none"}])
    step = rules(is_number="regexp_matches(reference, '^[0-9]+$')", is_large="cast(reference as integer) > 10")
    result = apply_rules(tickets=tickets, rules=step, out=new_folder())
    assert list(rows_of(result.tickets)) == ["a"]


def test_a_rule_that_fails_on_a_row_is_named_and_the_text_of_the_row_is_not(make_tickets: Any, new_folder: Any) -> None:
    tickets = make_tickets([{"ticket_id": "a", "body": "my secret text"}])
    with pytest.raises(ConfigError, match="TG0124") as error:
        apply_rules(tickets=tickets, rules=rules(is_large="cast(body as integer) > 10"), out=new_folder())
    assert error.value.where == "curate.rule.is_large"
    assert "secret text" not in str(error.value)


def test_of_several_rules_the_one_that_fails_on_a_row_is_named(
    make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    tickets = make_tickets([{"ticket_id": "a", "body": "text", "reply": "12"}, {"ticket_id": "b", "body": "12"}])
    step = rules(
        first="body is not null", second="cast(body as integer) > 10", third="cast(reply as integer) > 10", last="true"
    )
    removed = rows_of(apply_rules(tickets=tickets, rules=step, out=new_folder()).removed)
    assert {name: (row["outcome"], row["code"]) for name, row in removed.items()} == {
        "a": ("quarantined", "TG0124"),
        "b": ("dropped", "third"),
    }
    assert removed["a"]["reason"].startswith("curate.rule.second: the rule fails on a row: ConversionException")


@pytest.mark.parametrize("sql", ["reply is not", "repli is not null", "1; drop table tickets", "length(body)"])
def test_a_faulty_rule_is_refused_by_its_name(make_tickets: Any, new_folder: Any, sql: str) -> None:
    tickets = make_tickets([{"ticket_id": "a", "body": "text"}])
    with pytest.raises(TunegateError) as error:
        apply_rules(tickets=tickets, rules=rules(fine="body is not null", faulty=sql), out=new_folder())
    assert error.value.where == "curate.rule.faulty"


def test_all_rows_kept_and_all_rows_dropped_both_conserve_rows(make_tickets: Any, new_folder: Any) -> None:
    tickets = make_tickets([{"ticket_id": str(number), "body": "text"} for number in range(5)])
    kept = apply_rules(tickets=tickets, rules=rules(any="true"), out=new_folder())
    dropped = apply_rules(tickets=kept, rules=rules(none="body = 'other'"), out=new_folder())
    assert kept.tickets.read_bytes() == tickets.tickets.read_bytes()
    assert (dropped.rows.n_in, dropped.rows.n_out, dropped.rows.n_dropped) == (5, 0, 5)
