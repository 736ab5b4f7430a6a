"""Whatever numbers a text contains, looking for phone numbers among them never raises."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.curation_steps import RedactStep
from tasks.curate.redact import redact_row
from tasks.curate.redaction.numbers import is_phone
from tasks.curate.redaction.personal import find_personal

STEP = RedactStep(uses="redact")
NUMBERS = st.text("0123456789 ()+.-/x\u00a0", max_size=30)
AROUND = st.sampled_from(["", "call ", "order ", "Konto ", "The meter shows ", "Tel. ", "ext", " kWh", "\n"])
REGIONS = st.sampled_from(["DE", "US", "FR", "GB", "IT"])


@pytest.mark.parametrize("text", ["The meter shows 123456 0 kWh", "Konto 4711123 0", "0", "00", "call 0", "+", "(0)"])
def test_a_lone_zero_after_a_number_is_not_an_error(text: str) -> None:
    assert redact_row({"body": text}, STEP)[0] == {"body": text}


@given(before=AROUND, number=NUMBERS, after=AROUND)
@example("The meter shows ", "123456 0", " kWh")
@example("Konto ", "4711123 0", "")
def test_no_text_of_numbers_raises(before: str, number: str, after: str) -> None:
    text = f"{before}{number}{after}"
    redact_row({"subject": text, "body": text, "reply": text}, STEP)
    for found in find_personal(text, STEP.types, region=STEP.region, orders=None):
        assert 0 <= found.start < found.end <= len(text)


@given(text=NUMBERS.filter(bool), region=REGIONS, data=st.data())
def test_no_candidate_raises(text: str, region: str, data: st.DataObject) -> None:
    """Also none that the finder would not have proposed."""
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    assert is_phone(text, start, end, region=region) in (True, False)
