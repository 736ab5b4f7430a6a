"""Convert a text in any script to the form that the finders of numbers read; every character keeps its position.

They know ASCII digits and hyphens, and expect no letter before a number. So other digits (٠٥, ０３, ๐๘) become ASCII
digits, other dashes hyphens, and letters of scripts that put no space between a word and a number become spaces:
電話は03-1234-5678です. Words that say what a number is become cues that `numbers.py` and `credentials.py` know.
"""

import re
import unicodedata
from functools import cache

PHONE, REFERENCE, NATIONAL, CARD, PASSWORD = "ꜣ", "ꜥ", "ꝁ", "ꝃ", "ꝅ"
"""Letters that texts do not contain; a cue becomes as many of one as it has characters, the last of them a space."""
_CUES = {
    PASSWORD: """密码 密碼 口令 パスワード 暗証番号 비밀번호 암호 รหัสผ่าน รหัส
        كلمة|المرور كلمة|السر كلمة|مرور סיסמה סיסמא סיסמתי""",
    PHONE: """电话 電話 手机 手機 携帯 联系方式 聯絡 致电 微信 전화 휴대폰 핸드폰 연락처 โทรศัพท์ โทร เบอร์ มือถือ
        هاتف جوال موبايل تلفون اتصل الهاتف هاتفي جوالي טלפון הטלפון נייד הנייד פלאפון פקס""",
    REFERENCE: """订单 訂單 单号 單號 发票 發票 工单 運單 运单 快递 注文 受注 伝票 請求書 お問い合わせ番号 追跡
        주문 송장 운송장 คำสั่งซื้อ ใบแจ้งหนี้ พัสดุ
        طلب الطلب فاتورة الفاتورة شحنة הזמנה הזמנתי ההזמנה חשבונית החשבונית משלוח""",
    NATIONAL: """身份证 身分證 身份證 マイナンバー 個人番号 주민등록 주민번호 บัตรประชาชน ประจำตัวประชาชน
        الهوية هوية הזהות זהות""",
    CARD: """信用卡 银行卡 銀行卡 卡号 カード クレジット 신용카드 카드 บัตรเครดิต بطاقة البطاقة אשראי כרטיס""",
}
"""Words of these scripts; | means a space inside a word."""
OTHER_DIGIT = r"[^\P{Nd}0-9]"
OTHER_GAP = r"[0-9][^\x00-\x7f]{1,3}[0-9]"
"""For RE2: characters in numbers that are not ASCII. `gates.py` passes every text with one of these."""
PASSWORD_WORDS = tuple(_CUES[PASSWORD].replace("|", " ").split())
_GLUED = (
    (0x0590, 0x08FF),  # Hebrew, Arabic, Syriac, Thaana
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),
    (0x3040, 0x30FF),  # kana
    (0x3400, 0x9FFF),  # Han
    (0xAC00, 0xD7AF),  # Hangul
    (0xF900, 0xFAFF),
    (0xFB1D, 0xFDFF),
    (0xFE70, 0xFEFC),
    (0xFF66, 0xFF9D),
)
"""Scripts in which words touch numbers: they have no spaces, or attach prefixes and particles."""
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\uff0d"
_FULL_WIDTH = 0xFEE0
_READ_OTHERWISE = re.compile(
    "[" + "".join(f"{chr(low)}-{chr(high)}" for low, high in _GLUED) + _DASHES + "\u3000\uff01-\uff5e" + r"]|[^\D0-9]"
)


def is_read_otherwise(text: str) -> bool:
    """Whether `as_read` changes anything."""
    return not text.isascii() and _READ_OTHERWISE.search(text) is not None


def as_read(text: str) -> str:
    """Convert the text, with the same number of characters, for finders of e-mail addresses, secrets and numbers.

    >>> as_read("電話は０３−1234-5678です")
    'ꜣ  03-1234-5678  '
    >>> as_read("plain – text") == "plain - text", as_read("Zoë’s 12")
    (True, 'Zoë’s 12')
    """
    return _cue_pattern().sub(_cue, text).translate(_table())


def _cue(match: re.Match[str]) -> str:
    return _LETTER[match.lastgroup or ""] * (len(match[0]) - 1) + " "


_LETTER = {f"cue{place}": letter for place, letter in enumerate(_CUES)}


@cache
def _cue_pattern() -> re.Pattern[str]:
    """All cues, the longest first."""
    parts = []
    for place, words in enumerate(_CUES.values()):
        longest_first = sorted(words.split(), key=len, reverse=True)
        parts.append(f"(?P<cue{place}>{'|'.join(re.escape(word.replace('|', ' ')) for word in longest_first)})")
    return re.compile("|".join(parts))


@cache
def _table() -> dict[int, str]:
    table = {code: " " for low, high in _GLUED for code in range(low, high + 1) if chr(code).isalpha() or _joins(code)}
    table |= {code: chr(code - _FULL_WIDTH) for code in range(0xFF01, 0xFF5F) if code != ord("＠")}
    table |= dict.fromkeys(map(ord, _DASHES), "-")
    table[0x3000] = " "
    for code in range(0x10000):
        if code > ord("9") and chr(code).isdecimal():
            table[code] = str(unicodedata.decimal(chr(code)))
    return table


def _joins(code: int) -> bool:
    """Whether it is a vowel sign or a tone mark, which belongs to the letter before."""
    return unicodedata.category(chr(code)) in ("Mn", "Mc", "Lm")
