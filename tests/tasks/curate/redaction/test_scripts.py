"""Tickets in other scripts: what is personal is found although words touch it, and whatever digits it is written in."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.curation_steps import RedactStep
from tasks.curate.redact import redact_row, redact_tickets
from tasks.curate.redaction.scripts import as_read

FOUND = {
    "zh": [
        ("CN", "电话13800138000，邮箱li@example.cn谢谢", "电话[PHONE_1]，邮箱[EMAIL_1]谢谢"),
        ("CN", "手机号：138-0013-8000谢谢", "手机号：[PHONE_1]谢谢"),
        ("CN", "身份证号11010519491231002X谢谢", "身份证号[NATIONAL_ID_1]谢谢"),
        ("CN", "密码:hunter2abc谢谢", "密码:[SECRET_1]谢谢"),
        ("CN", "请看https://example.com/a?x=1谢谢您", "请看[URL_1]谢谢您"),
        ("CN", "IP是192.168.1.17请检查", "IP是[IP_1]请检查"),
        ("DE", "IBAN是DE89370400440532013000谢谢", "IBAN是[IBAN_1]谢谢"),
    ],
    "ja": [
        ("JP", "メールはtaro@example.co.jpです。電話は03-1234-5678です。",
         "メールは[EMAIL_1]です。電話は[PHONE_1]です。"),
        ("JP", "電話０３－１２３４－５６７８まで", "電話[PHONE_1]まで"),
        ("JP", "電話03ー1234ー5678まで", "電話[PHONE_1]まで"),
        ("JP", "カード４１１１１１１１１１１１１１１１です", "カード[CARD_1]です"),
        ("JP", "ＤＥ８９３７０４００４４０５３２０１３０００です", "[IBAN_1]です"),
        ("JP", "パスワード：hunter2abcです", "パスワード：[SECRET_1]です"),
    ],
    "ko": [
        ("KR", "전화는 010-1234-5678입니다. 카드번호는 4111-1111-1111-1111입니다.",
         "전화는 [PHONE_1]입니다. 카드번호는 [CARD_1]입니다."),
        ("KR", "주민등록번호는 900101-1234568입니다", "주민등록번호는 [NATIONAL_ID_1]입니다"),
    ],
    "th": [
        ("TH", "โทร081-234-5678ค่ะ อีเมลmalee@example.co.thค่ะ", "โทร[PHONE_1]ค่ะ อีเมล[EMAIL_1]ค่ะ"),
        ("TH", "เบอร์ ๐๘๑-๒๓๔-๕๖๗๘ ค่ะ", "เบอร์ [PHONE_1] ค่ะ"),
        ("TH", "บัตรประชาชน 1-1037-02071-81-1 ค่ะ", "บัตรประชาชน [NATIONAL_ID_1] ค่ะ"),
    ],
    "ar": [
        ("AE", "هاتفي ٠٥٠-١٢٣-٤٥٦٧ شكرا", "هاتفي [PHONE_1] شكرا"),
        ("AE", "رقم هاتفي \u200e+971 50 123 4567", "رقم هاتفي \u200e[PHONE_1]"),
        ("AE", "كلمة المرور: hunter2abc شكرا", "كلمة المرور: [SECRET_1] شكرا"),
        ("US", "بطاقتي ٤١١١١١١١١١١١١١١١ شكرا", "بطاقتي [CARD_1] شكرا"),
    ],
    "he": [
        ("IL", "הטלפון שלי050-123-4567 תודה", "הטלפון שלי[PHONE_1] תודה"),
        ("IL", "כתבו לdana@example.co.il תודה", "כתבו ל[EMAIL_1] תודה"),
        ("IL", "מספר זהות 123456782 תודה", "מספר זהות [NATIONAL_ID_1] תודה"),
    ],
    "en": [("US", "call 415–555–2671 now", "call [PHONE_1] now")],
}  # fmt: skip
KEPT = [
    ("CN", "订单号12345678还没有发货"),
    ("JP", "注文番号は2026-0042-7781です。２０２６年６月１日に届きました。"),
    ("TH", "คำสั่งซื้อ 55512345 ยังไม่มาถึง"),
    ("AE", "رقم الطلب ٥٥٥١٢٣٤٥ لم يصل"),
    ("IL", "ההזמנה 55512345 לא הגיעה"),
    ("US", "The years 2020–2024, pages 10–12 and 3–4 items."),
]
CASES = [
    pytest.param(*case, id=f"{script}-{place}") for script, cases in FOUND.items() for place, case in enumerate(cases)
]


@pytest.mark.parametrize(("region", "text", "redacted"), CASES)
def test_it_is_found_where_words_touch_it_and_nothing_beside_it_goes(region: str, text: str, redacted: str) -> None:
    row, _ = redact_row({"body": text}, RedactStep(uses="redact", region=region))
    assert row["body"] == redacted
    assert redact_row(row, RedactStep(uses="redact", region=region))[0] == row


@pytest.mark.parametrize(("region", "text"), KEPT)
def test_order_numbers_dates_and_ranges_stay(region: str, text: str) -> None:
    assert redact_row({"body": text}, RedactStep(uses="redact", region=region))[0]["body"] == text


@pytest.mark.parametrize("region", sorted({case[0] for cases in FOUND.values() for case in cases}))
def test_the_table_is_redacted_as_ticket_by_ticket(
    region: str, make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    texts = [case[1] for cases in FOUND.values() for case in cases] + [text for _, text in KEPT]
    step = RedactStep(uses="redact", region=region)
    rows = [
        {"ticket_id": f"t{number:02}", "source": "t", "source_line": number, "body": text, "reply": texts[-number]}
        for number, text in enumerate(texts, start=1)
    ]
    made = redact_tickets(tickets=make_tickets(rows), step=step, out=new_folder())
    for row in rows:
        alone, _ = redact_row({"body": row["body"], "reply": row["reply"]}, step)
        assert {name: rows_of(made.tickets)[row["ticket_id"]][name] for name in alone} == alone


@given(
    st.text(st.sampled_from("电話はโทรهاتفהטלפון전화０1٢๓-–—ー＠a.b: \n\u3000é😀"), max_size=60) | st.text(max_size=60)
)
def test_every_character_stays_at_its_place(text: str) -> None:
    read = as_read(text)
    assert len(read) == len(text)
    assert as_read(read) == read
    for one, other in zip(text, read, strict=True):
        assert one == other or not one.isascii()
