"""What of a ticket is compared, and in which form: SQL expressions for the question, its normal form and its words.

Only the customer's side counts: subject and body, never the reply, so that tickets with one question and different
answers are compared. These expressions define the words of a text; the kernels of `tasks/curate/similarity/kernels/`
find the same words eight times as fast.
"""

from typing import Literal

QUESTION = "concat_ws(' ', subject, body)"
"""The customer's text of a ticket row; '' if there is none."""

# Scripts written without spaces: every character becomes a word, so that shingles of words are shingles of characters.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
INVISIBLE = r"\p{Cf}"
WORD = r"[\p{L}\p{N}\p{M}]"
_BETWEEN_WORDS = r"[^\p{L}\p{N}\p{M}]+"


def compared_text(compare: Literal["question", "question_and_answer"]) -> str:
    """Return the SQL expression of what a dedup step compares of a ticket row; '' if there is nothing."""
    return f"concat_ws(' ', {QUESTION}, reply)" if compare == "question_and_answer" else QUESTION


def folded(text: str) -> str:
    """Return the SQL expression of the text in NFC and lower case; ASCII text may keep its case.

    `fold_batch` in `tasks/curate/similarity/letters.py` does the same ten times as fast.
    """
    return f"CASE WHEN strlen({text}) = length({text}) THEN {text} ELSE {_lowered(text)} END"


def normal_form(text: str) -> str:
    """Return the SQL expression of the text's normal form: NFC, lower case, words separated by one space.

    Punctuation, spaces and invisible characters are ignored; two texts are exact duplicates if their normal forms are
    equal. '' for a text without a letter or digit.

    Args:
        text: SQL expression of type VARCHAR, not null.
    """
    visible = f"regexp_replace({_lowered(text)}, '{INVISIBLE}+', '', 'g')"
    spaced = rf"regexp_replace({visible}, '({UNSPACED})', ' \1 ', 'g')"
    return f"trim(regexp_replace({spaced}, '{_BETWEEN_WORDS}', ' ', 'g'))"


def words_of(normal: str) -> str:
    """Return the SQL expression of the list of words of a text in normal form; an empty list for ''."""
    return f"CASE WHEN {normal} = '' THEN []::VARCHAR[] ELSE string_split({normal}, ' ') END"


def word_runs(words: str, n_words: int) -> str:
    """Return the SQL expression of the distinct runs of `n_words` words (shingles, n-grams); empty if there are fewer.

    Words contain no space, so runs joined by one space are equal only if their words are.
    """
    starts = f"range(1, len({words}) - {n_words - 2})"
    return f"list_distinct(list_transform({starts}, lambda i: array_to_string({words}[i:i + {n_words - 1}], ' ')))"


def _lowered(text: str) -> str:
    # nfc_normalize ends at a NUL byte.
    return f"nfc_normalize(lower(nfc_normalize(replace({text}, chr(0), ' '))))"
