"""One label for most tickets, or one that no ticket has, is named as such: five wrong answers may be one fault."""

from tasks.assess.given_labels import describe_given, describe_same

KNOWN = {"billing", "returns"}


def test_worst_answers_with_one_invented_label_say_so() -> None:
    invented = "Account & Management"
    assert describe_same([invented] * 5, KNOWN) == f"all 5 answers have the label {invented}, which no train ticket has"
    assert describe_same(["billing"] * 2, KNOWN) == "all 2 answers have the label billing"
    assert describe_same(["billing", "returns"], KNOWN) == ""
    assert describe_same(["billing"], KNOWN) == describe_same([None, None], KNOWN) == describe_same([], KNOWN) == ""


def test_all_answers_are_counted_without_naming_a_label() -> None:
    wanted = ["billing", "returns"] * 5
    assert describe_given(["billing", "returns"] * 5, wanted, KNOWN) == ""
    assert describe_given(["billing"] * 8 + ["returns"] * 2, wanted, KNOWN) == ""  # half of the tickets have it
    assert describe_given(["x"] * 6 + [None] * 4, wanted, KNOWN) == (
        "6 of 10 answers have one and the same label, which no train ticket has"
    )
    assert describe_given(["billing"] * 7 + ["x", "y", None], wanted, KNOWN) == (
        "2 of 10 answers have labels that no train ticket has"
    )
    rare = ["billing", *["returns"] * 9]
    assert describe_given(["billing"] * 9 + ["x"], rare, KNOWN) == (
        "9 of 10 answers have one and the same label, which 1 ticket has; 1 of 10 answers have labels that no train "
        "ticket has"
    )
