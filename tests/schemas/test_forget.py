"""What earlier versions printed of a customer's data stays readable."""

from schemas.forget import Holding


def test_the_note_of_an_earlier_version_is_read() -> None:
    earlier = Holding.model_validate(
        {"kind": "landed", "place": "ingest/a", "fate": "removed", "told": "rows and comments"}
    )
    assert earlier.note == "rows and comments"
    assert Holding.model_validate(earlier.model_dump(mode="json")) == earlier
    assert "told" not in earlier.model_dump()
