"""Tickets in Chinese, Japanese, Thai, Arabic and Hebrew through every stage of curation."""

from dataclasses import dataclass
from typing import Any

import pytest

from schemas.curation import DecontaminateSpec
from schemas.curation_steps import DedupStep, LabelCheckStep, LanguageStep, LengthStep, QualityStep, RedactStep
from tasks.curate.decontaminate import decontaminate
from tasks.curate.dedup import drop_duplicates
from tasks.curate.label_check import check_labels
from tasks.curate.language import drop_by_language
from tasks.curate.length import drop_by_length
from tasks.curate.quality import score_quality
from tasks.curate.redact import redact_tickets


@dataclass(frozen=True)
class Script:
    """What customers and agents write in it.

    Attributes:
        late: A question, with a place for a contact.
        contacts: Three of them; personal.
        cancel: Another question.
        filler: A sentence of no question.
        reply: An answer.
    """

    language: str
    region: str
    late: str
    contacts: tuple[str, str, str]
    cancel: str
    filler: str
    reply: str


SCRIPTS = (
    Script(
        "zh", "CN", "你好，我上周订购的台灯应该昨天送到，但现在还没有收到，请帮我查物流状态，联系方式{}。谢谢！",
        ("li@example.cn", "手机13800138000", "电话010-6552-9988"),
        "请取消我的会员订阅，我不再需要这项服务了，请确认取消已经生效，并且下个月不会再扣款。",
        "另外，我想知道你们周末是否营业，以及门店的具体地址在哪里。",
        "您好，已经为您查询，包裹明天送达，感谢您的耐心等待。",
    ),
    Script(
        "ja", "JP", "先週注文したランプがまだ届いていません。配送状況を確認していただけますか。連絡先は{}です。",
        ("taro@example.co.jp", "電話03-1234-5678", "携帯０９０－１２３４－５６７８"),
        "定期購入を解約したいので、手続きの方法を教えてください。来月から請求されないようにお願いいたします。",
        "ちなみに、週末も営業しているかどうか、お店の住所もあわせて教えていただけると助かります。",
        "お調べしたところ、荷物は明日届く予定です。お待たせして申し訳ございません。",
    ),
    Script(
        "th", "TH", "สวัสดีค่ะ โคมไฟที่สั่งซื้อเมื่อสัปดาห์ที่แล้วยังไม่มาถึง กรุณาตรวจสอบสถานะการจัดส่งให้ด้วยค่ะ ติดต่อ{}ค่ะ",
        ("malee@example.co.th", "โทร081-234-5678", "โทร๐๘๙-๘๗๖-๕๔๓๒"),
        "ต้องการยกเลิกการสมัครสมาชิก กรุณาแจ้งขั้นตอนและยืนยันว่าเดือนหน้าจะไม่มีการเรียกเก็บเงินอีก",
        "อีกเรื่องหนึ่ง อยากทราบว่าร้านเปิดวันเสาร์อาทิตย์หรือไม่ และที่อยู่ของสาขาอยู่ตรงไหน",
        "ตรวจสอบแล้วค่ะ พัสดุจะถึงพรุ่งนี้ ขออภัยในความล่าช้านะคะ",
    ),
    Script(
        "ar", "AE", "المصباح الذي طلبته الأسبوع الماضي لم يصل حتى الآن، هل يمكنكم التحقق من الشحن؟ للتواصل {} وشكرا.",
        ("ahmad@example.com", "هاتفي 050-123-4567", "هاتفي ٠٥٠-٧٦٥-٤٣٢١"),
        "أريد إلغاء اشتراكي في الخدمة، أرجو تأكيد الإلغاء وعدم خصم أي مبلغ من حسابي في الشهر القادم.",
        "كما أود أن أعرف هل تعملون في عطلة نهاية الأسبوع وما هو عنوان الفرع القريب من وسط المدينة.",
        "تحققنا من الأمر، ستصل الشحنة غدا ونعتذر عن التأخير.",
    ),
    Script(
        "he", "IL", "המנורה שקניתי אצלכם בשבוע שעבר עדיין לא הגיעה, האם אפשר לבדוק היכן היא נמצאת? ליצירת קשר {} תודה.",
        ("dana@example.co.il", "נייד 050-123-4567", "נייד 052-765-4321"),
        "אני רוצה לבטל את המנוי שלי, אנא אשרו את הביטול ושלא יהיה חיוב נוסף בחודש הבא בחשבון שלי.",
        "בנוסף, אשמח לדעת האם אתם פתוחים בסוף השבוע ומה הכתובת של הסניף הקרוב למרכז העיר.",
        "בדקנו, החבילה תגיע מחר ואנחנו מתנצלים על העיכוב.",
    ),
)  # fmt: skip


@pytest.fixture(params=SCRIPTS, ids=lambda script: script.language)
def script(request: pytest.FixtureRequest) -> Script:
    chosen: Script = request.param
    return chosen


def rows(script: Script) -> list[dict[str, Any]]:
    """One question from three people, one with another label; and another question."""
    bodies = [*(script.late.format(contact) for contact in script.contacts), script.cancel]
    labels = ("delivery", "delivery", "billing", "cancellation")
    return [
        {"ticket_id": f"t{n}", "source": "t", "source_line": n, "body": body, "reply": script.reply, "category": label}
        for n, (body, label) in enumerate(zip(bodies, labels, strict=True), start=1)
    ]


def test_nothing_personal_is_left_and_the_same_question_is_one(
    script: Script, make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    step = RedactStep(uses="redact", region=script.region)
    redacted = redact_tickets(tickets=make_tickets(rows(script)), step=step, out=new_folder())
    texts = {name: row["body"] for name, row in rows_of(redacted.tickets).items()}
    for contact, text in zip(script.contacts, texts.values(), strict=False):
        assert not any(part in text for part in (contact[-6:], "example")), text
        assert "[EMAIL_1]" in text or "[PHONE_1]" in text
    assert texts["t4"] == script.cancel

    labels = check_labels(
        tickets=redacted, step=LabelCheckStep(uses="label_check", mode="contradiction"), out=new_folder()
    )
    assert labels.rows.n_in == 4
    kept = drop_duplicates(tickets=redacted, step=DedupStep(uses="dedup", threshold=0.7), out=new_folder())
    left = set(rows_of(kept.tickets))
    assert "t4" in left
    assert len(left & {"t2", "t3"}) <= 1, "they differ in the number alone"
    assert kept.rows.n_in == kept.rows.n_out + kept.rows.n_merged


def test_language_length_and_quality_are_told(script: Script, make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    tickets = make_tickets(rows(script))
    known = drop_by_language(tickets=tickets, step=LanguageStep(uses="language", keep=("en",)), out=new_folder())
    assert known.rows.n_out == 0
    known = drop_by_language(
        tickets=tickets, step=LanguageStep(uses="language", keep=(script.language,)), out=new_folder()
    )
    assert {row["language"] for row in rows_of(known.tickets).values()} == {script.language}
    assert known.rows.n_out == 4
    long = drop_by_length(tickets=known, step=LengthStep(uses="length", min_body=20, min_reply=10), out=new_folder())
    assert long.rows.n_out == 4
    step = QualityStep(
        uses="quality", max_repetition=0.6, max_caps_share=0.5, max_symbol_share=0.4, drop_stub_replies=True
    )
    scored = score_quality(tickets=long, step=step, out=new_folder())
    assert scored.rows.n_out == 4
    for row in rows_of(scored.tickets).values():
        assert row["n_words"] > 10
        assert row["repetition"] < 0.3


def test_a_held_out_question_is_found_in_what_is_trained_on(
    script: Script, make_splits: Any, new_folder: Any, rows_of: Any
) -> None:
    late = script.late.format("")
    test = [{"ticket_id": "held", "body": late}]
    train = [
        {"ticket_id": "same", "body": f"  {late} "},
        {"ticket_id": "quoted", "body": f"{script.filler} {late} {script.filler}"},
        {"ticket_id": "other", "body": script.cancel},
        {"ticket_id": "filler", "body": script.filler},
    ]
    clean = decontaminate(splits=make_splits(train=train, test=test), spec=DecontaminateSpec(), out=new_folder())
    assert {name: row["code"] for name, row in rows_of(clean.removed).items()} == {
        "same": "leak_exact", "quoted": "leak_quote",
    }  # fmt: skip
