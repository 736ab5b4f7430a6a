"""Convert messages and texts to token ids: the only way for training, generation and scoring.

So the same messages get the same ids in all three.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from schemas.errors import ConfigError, DataError
from schemas.training import Format, LossOn
from tasks.compute.limits import memory_limit
from tasks.model.base_model import named_panics
from tasks.tickets.prompts import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARKERS = ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "<<SYS>>", "<</SYS>>")
"""Control texts of templates that are not special tokens; neutralised if the template writes them."""
_RARE = "\U00013000"
"""A hieroglyph, which a vocabulary without byte tokens does not have."""
_ANSWER = "Zanswerq"
"""An answer that no template contains."""
_MEMORY = 1 << 29
"""Bytes for rendering the first conversation, besides the limits of every rendering."""
_FIXED_DAY = (
    "{%- macro strftime_now(form) -%}{{ form|replace('%d', '26')|replace('%b', 'Jul')|replace('%B', 'July')"
    "|replace('%m', '07')|replace('%Y', '2024')|replace('%H', '00')|replace('%M', '00')|replace('%S', '00') }}"
    "{%- endmacro -%}"
)
"""Replaces the clock of templates that write a date (with Llama 3's default date): ids must not change overnight."""


@dataclass(frozen=True)
class Encoded:
    """One example."""

    input_ids: list[int]
    loss_mask: list[int]
    """1 for tokens that carry loss."""
    n_neutralised: int
    """Control texts that were broken up."""
    n_rewritten: int = 0
    """Earlier answers without loss, because the template writes them differently when a turn follows."""


@dataclass(frozen=True)
class TurnForm:
    """How a template writes an assistant's turn."""

    opening: str = ""
    """Text between the template's prompt and the answer, such as an empty thought or the name of a channel. It is a
    part of each prompt, so an answer begins where the text that was trained began."""
    end_id: int = 0
    """The special token that ends the turn."""
    ends_next: bool = False
    """Whether only the next turn writes that token, as its own start."""


@dataclass(frozen=True)
class ChatCodec:
    """How one tokenizer writes conversations (`instruction`) or plain prompts (`completion`).

    Control texts in tickets are broken up before the template is filled: `<|im_end|>` becomes `< |im_end|>`, which
    reads the same but cannot end a turn. Tokens after the last one with loss are cut: nothing attends to them.
    """

    tokenizer: PreTrainedTokenizerBase
    format: Format
    turn: TurnForm
    control: re.Pattern[str] | None
    special_ids: frozenset[int]
    loss_on: LossOn = "all_assistant"
    _skeletons: dict[tuple[tuple[str, ...], bool], list[int]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, form: Format, loss_on: LossOn = "all_assistant") -> ChatCodec:
        """Find the tokenizer's control tokens and, from its template, the token that ends a turn.

        Raises:
            ConfigError: TG0173, there is no chat template, it does not write an answer after its own prompt or does
                not end it with a token, or the tokenizer has no end token.
        """
        template = _template(tokenizer) if form == "instruction" else ""
        added = tokenizer.added_tokens_decoder
        special = {number for number, token in added.items() if token.special} | set(tokenizer.all_special_ids)
        if tokenizer.unk_token_id in _ids_of(tokenizer, _RARE, add_special_tokens=False):
            special -= {tokenizer.unk_token_id}  # here it stands for rare letters, not for control
        texts = {token.content for token in added.values() if token.special} | set(tokenizer.all_special_tokens)
        texts |= {marker for marker in _MARKERS if marker in template}
        longest_first = sorted((text for text in texts if text.strip()), key=lambda text: (-len(text), text))
        control = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        if form == "instruction":
            turn = read_turn_form(tokenizer, special)
        elif tokenizer.eos_token_id is None:
            raise ConfigError("the tokenizer has no end-of-text token", code="TG0173", where="base_model")
        else:
            turn = TurnForm(end_id=int(tokenizer.eos_token_id))
        return cls(tokenizer, form, turn, control, frozenset(special), loss_on)

    @property
    def end_id(self) -> int:
        """The token that ends an answer, and carries loss."""
        return self.turn.end_id

    def prompt_ids(self, prompt: Sequence[Message] | str) -> list[int]:
        """Token ids of a prompt, up to where the answer starts.

        Raises:
            DataError: the template rejects the messages, or a control token survived in their text.
        """
        if isinstance(prompt, str):
            ids = _ids_of(self.tokenizer, self._plain(prompt))
            while ids and ids[-1] == self.tokenizer.eos_token_id:
                ids.pop()
            if any(number in self.special_ids for number in ids[1:]):
                raise _control_token_error()
            return ids
        return self._render(prompt, generation=True)

    def text(self, turns: Sequence[Message], *, generation: bool) -> str:
        """The conversation as the template writes it, with its contents unchanged.

        Raises:
            DataError: the template rejects the messages.
        """
        text = fill_template(self.tokenizer, turns, generation=generation)
        return text + self.turn.opening if generation else text

    def answer_ids(self, answer: str) -> list[int]:
        """Token ids of an answer, with the token that ends it.

        White space around a turn is removed; around a completion it is part of the text (the space after `Category:`).
        """
        text = answer.strip() if self.format == "instruction" else answer
        return [*self._encode(self._plain(text)), self.end_id]

    def part_ids(self, text: str) -> list[int]:
        """Token ids of a part of an answer."""
        return self._encode(self._plain(text))

    def conversation(self, turns: Sequence[Message]) -> Encoded:
        """Encode a conversation; the assistant turns that `loss_on` selects carry loss, including their end tokens.

        Each of them continues exactly what a prompt in serving ends with. Some templates rewrite an earlier answer when
        a turn follows (they drop its thought, or end it with another token); it then carries no loss.

        Raises:
            DataError: the template writes prompt and answer together differently from each alone, so serving would use
                other ids than training.
        """
        spans: list[tuple[list[int], int]] = []
        for at in supervised_turns(turns, self.loss_on):
            if not turns[at]["content"].strip():
                raise _missing("answer to learn")
            prompt = self.prompt_ids(turns[:at])
            supervised = prompt + self.answer_ids(turns[at]["content"])
            written = self._render(turns[: at + 1], generation=False) + [self.end_id] * self.turn.ends_next
            if written[: len(supervised)] != supervised:
                raise DataError(
                    "the chat template writes this conversation differently in training and in serving",
                    code="TG0314",
                    where="chat template",
                    hint="in the template, a prompt must be a prefix of the whole conversation",
                )
            spans.append((supervised, len(prompt)))
        ids = spans[-1][0] if spans else []
        mask = [0] * len(ids)
        kept = [(each, start) for each, start in spans if ids[: len(each)] == each]
        for each, start in kept:
            mask[start : len(each)] = [1] * (len(each) - start)
        n_neutralised = sum(self._count(turn["content"]) for turn in turns)
        return self._checked(ids, mask, n_neutralised, n_rewritten=len(spans) - len(kept))

    def completion(self, prompt: str, answer: str) -> Encoded:
        """Encode a plain prompt and its answer; answer and end token carry loss."""
        before, after = self.prompt_ids(prompt), self.answer_ids(answer)
        return self._checked(
            before + after, [0] * len(before) + [1] * len(after), self._count(prompt) + self._count(answer)
        )

    def _checked(self, ids: list[int], mask: list[int], n_neutralised: int, n_rewritten: int = 0) -> Encoded:
        if sum(mask) < 2:
            raise _missing("answer to learn")
        if mask[0]:
            raise _missing("prompt before its answer")
        return Encoded(ids, mask, n_neutralised, n_rewritten)

    def _render(self, turns: Sequence[Message], *, generation: bool) -> list[int]:
        clean = [{"role": turn["role"], "content": self._plain(turn["content"])} for turn in turns]
        ids = self._encode(self.text(clean, generation=generation))
        key = (tuple(turn["role"] for turn in turns), generation)
        if key not in self._skeletons:
            bare = [{"role": role, "content": "x"} for role in key[0]]
            self._skeletons[key] = self._special(self._encode(self.text(bare, generation=generation)))
        if self._special(ids) != self._skeletons[key]:
            raise _control_token_error()
        return ids

    def _encode(self, text: str) -> list[int]:
        return _ids_of(self.tokenizer, text, add_special_tokens=False)

    def _special(self, ids: list[int]) -> list[int]:
        return [number for number in ids if number in self.special_ids]

    def _count(self, text: str) -> int:
        return len(self.control.findall(text)) if self.control else 0

    def _plain(self, text: str) -> str:
        while self.control is not None and self.control.search(text):
            broken = self.control.sub(lambda found: f"{found[0][0]} {found[0][1:]}" if found[0][1:] else " ", text)
            if broken == text:
                break
            text = broken
        return text


def supervised_turns(turns: Sequence[Message], loss_on: LossOn) -> list[int]:
    """Indices of the assistant turns that carry loss; a turn of weight 0 never does.

    >>> talk = [{"role": role, "content": "x"} for role in ("user", "assistant", "user", "assistant")]
    >>> supervised_turns(talk, "all_assistant"), supervised_turns(talk, "last"), supervised_turns(talk, "flagged")
    ([1, 3], [3], [3])
    >>> talk[1]["weight"] = "1"
    >>> supervised_turns(talk, "flagged")
    [1]
    """
    answers = [at for at, turn in enumerate(turns) if turn["role"] == "assistant"]
    if loss_on == "flagged" and any("weight" in turns[at] for at in answers):
        return [at for at in answers if turns[at].get("weight") == "1"]
    chosen = answers if loss_on == "all_assistant" else answers[-1:]
    return [at for at in chosen if turns[at].get("weight") != "0"]


def training_template(codec: ChatCodec) -> str | None:
    """The chat template as used in training, for serving the model elsewhere; None if there is none."""
    template = codec.tokenizer.chat_template
    if not isinstance(template, str) or not template:
        return None
    opening = codec.turn.opening
    # Jinja drops a newline at the end of a template, but not one that has something after it.
    added = f"{{% if add_generation_prompt %}}{{{{ {json.dumps(opening)} }}}}{{% endif %}}" if opening else ""
    return _with_fixed_day(template.removesuffix("\n") + added if added else template)


def _with_fixed_day(template: str) -> str:
    return _FIXED_DAY + template if "strftime_now" in template else template


def _template(tokenizer: Writer) -> str:
    template = tokenizer.chat_template
    if not isinstance(template, str) or not template:
        raise no_template_error()
    return template


def no_template_error() -> ConfigError:
    """What is wrong with a base model that cannot write conversations."""
    return ConfigError(
        "the base model has no chat template",
        code="TG0173",
        where="base_model",
        hint="set `prompt.chat_template` (e.g. chatml), use an instruction-tuned base, or `format: completion`",
    )


def fill_template(tokenizer: Writer, turns: Sequence[Message], *, generation: bool) -> str:
    """The conversation as the tokenizer's template writes it.

    Args:
        generation: Up to where an answer begins.

    Raises:
        ConfigError: TG0173, there is no template, or it takes too much time or memory.
        DataError: TG0314, the template rejects the turns.
    """
    from jinja2 import TemplateError

    from tasks.model.limited_template import TemplateTooCostly, render_limited

    template = _with_fixed_day(_template(tokenizer))
    variables = {**tokenizer.special_tokens_map, "add_generation_prompt": generation}
    try:
        return render_limited(template, turns, variables)
    except TemplateTooCostly:
        raise _costly_template_error() from None
    except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
        raise DataError(
            f"the chat template rejects turns {', '.join(turn['role'] for turn in turns)}: {type(error).__name__}",
            code="TG0314",
            where="chat template",
            hint="some templates have no system turn: leave `system` empty",
        ) from None


def _costly_template_error() -> ConfigError:
    return ConfigError(
        "the chat template takes seconds, or makes millions of characters or huge integers, for one conversation",
        code="TG0173",
        where="base_model",
        hint="do not use it: a normal chat template needs less than a hundredth of that",
    )


def _ids_of(tokenizer: Writer, text: str, **options: bool) -> list[int]:
    with named_panics():
        return list(tokenizer.encode(text, **options))


class Writer(Protocol):
    """What filling a template needs of a tokenizer."""

    chat_template: Any
    special_tokens_map: Any

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the ids of a text."""
        ...


def read_turn_form(tokenizer: Writer, special: Collection[int]) -> TurnForm:
    """Find what the template writes before and after an assistant's text.

    Raises:
        ConfigError: TG0173, the template's prompt is no part of the whole conversation, or no special token ends the
            turn.
    """
    question, answer = {"role": "user", "content": "x"}, {"role": "assistant", "content": _ANSWER}
    try:
        with memory_limit(_MEMORY):
            prompt = fill_template(tokenizer, [question], generation=True)
            whole = fill_template(tokenizer, [question, answer], generation=False)
    except MemoryError:
        raise _costly_template_error() from None
    if not whole.startswith(prompt):
        raise _prompt_apart_error(prompt, whole, _template(tokenizer))
    opening, found, after = whole[len(prompt) :].partition(_ANSWER)
    ends_next = bool(found) and not after
    if ends_next:
        with suppress(DataError):  # a template that takes one question only
            after = fill_template(tokenizer, [question, answer, question], generation=False).partition(_ANSWER)[2]
    ids = _ids_of(tokenizer, after, add_special_tokens=False)
    if not ids or ids[0] not in special:
        raise ConfigError(
            "the chat template does not end an assistant's turn with a special token, so a model cannot learn to stop",
            code="TG0173",
            where="base_model",
            hint="name that token in `prompt.added_tokens`, use another base model, or `format: completion`",
        )
    return TurnForm(opening, int(ids[0]), ends_next)


def _prompt_apart_error(prompt: str, whole: str, template: str) -> ConfigError:
    """A template whose prompt has something that its conversations lack, such as the start of a thought."""
    same = next((at for at, pair in enumerate(zip(prompt, whole, strict=False)) if pair[0] != pair[1]), len(whole))
    start = max(0, same - 12)
    switch = "enable_thinking"
    return ConfigError(
        f"the chat template ends a prompt with {prompt[start:]!r}, but writes {whole[start : len(prompt) + 12]!r} in a "
        "conversation: no answer that continues the prompt can be trained",
        code="TG0173",
        where="base_model",
        hint=f"set `prompt.template_options: {{{switch}: false}}`, which this template knows"
        if switch in template
        else "give it a template that answers at once: `prompt.chat_template`, e.g. chatml",
    )


def _missing(what: str) -> DataError:
    return DataError(
        f"an example has no {what}",
        code="TG0315",
        where="train.prompt",
        hint="a rule can drop such rows: {uses: rule, name: has_reply, keep: reply is not null}",
    )


def _control_token_error() -> DataError:
    return DataError(
        "a ticket's text contains a control token of the model",
        code="TG0314",
        where="chat template",
        hint="a rule can drop such tickets",
    )
