"""The texts that a chat template writes around each turn, found by filling it, for programs without Jinja.

Ollama's template language differs. A template that is a plain sequence of turns can be translated; any other is
refused, since an approximation would serve texts that differ from training.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.errors import ConfigError
from tasks.model.chat_codec import ChatCodec
from tasks.tickets.prompts import Message

_SYSTEM, _USER, _ASSISTANT, _AGAIN = "Zsystemq", "Zuserq", "Zassistantq", "Zagainq"
_TALKS = (("user",), ("system", "user"), ("user", "assistant", "user"), ("system", "user", "assistant", "user"),
          ("system", "user", "assistant", "user", "assistant", "user"))  # fmt: skip


@dataclass(frozen=True)
class TurnTexts:
    """Texts before and after the content of each turn."""

    bare: str
    """Start of a conversation without a system turn."""
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    generation: str
    """The text right before an answer."""

    def render(self, turns: Sequence[Message]) -> str:
        """The conversation up to the start of the answer."""
        others = [turn for turn in turns if turn["role"] != "system"]
        system = [turn["content"] for turn in turns if turn["role"] == "system"]
        head = system[0].join(self.system) if system else self.bare
        around = {"user": self.user, "assistant": self.assistant}
        return head + "".join(turn["content"].join(around[turn["role"]]) for turn in others) + self.generation


def read_turn_texts(codec: ChatCodec) -> TurnTexts:
    """Find the texts around turns in the codec's chat template, and check them on several conversations.

    Raises:
        ConfigError: TG0185, the template is not a plain sequence of turns.
    """
    question, answer = _turn("user", _USER), _turn("assistant", _ASSISTANT)
    user = codec.text([question], generation=False)
    talk = codec.text([question, answer, _turn("user", _AGAIN)], generation=False)
    with_system = codec.text([_turn("system", _SYSTEM), question], generation=False)
    prompted = codec.text([question], generation=True)
    try:
        after_user = user.split(_USER)[1]
        after_answer = codec.text([question, answer], generation=False).split(_ASSISTANT)[1]
        before_user = _without(talk.split(_ASSISTANT)[1].split(_AGAIN)[0], head=after_answer)
        before_answer = _without(talk.split(_USER)[1].split(_ASSISTANT)[0], head=after_user)
        between = with_system.split(_SYSTEM)[1].split(_USER)[0]
        found = TurnTexts(
            bare=_without(user.split(_USER)[0], tail=before_user),
            system=(with_system.split(_SYSTEM)[0], _without(between, tail=before_user)),
            user=(before_user, after_user),
            assistant=(before_answer, after_answer),
            generation=_without(prompted, head=user),
        )
    except (IndexError, ValueError):
        raise _not_plain() from None
    for roles in _TALKS:
        turns = [_turn(role, f"{role} says\nthing {number}.") for number, role in enumerate(roles)]
        if found.render(turns) != codec.text(turns, generation=True):
            raise _not_plain()
    return found


def _turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _without(text: str, *, head: str = "", tail: str = "") -> str:
    if not text.startswith(head) or not text.endswith(tail):
        raise ValueError("head or tail not found")
    return text[len(head) : len(text) - len(tail)]


def _not_plain() -> ConfigError:
    return ConfigError(
        "the chat template is not a plain sequence of turns, so it cannot be translated exactly to Ollama's language",
        code="TG0185",
        where="chat template",
        hint="export it as `merged`: llama.cpp's converter copies the template unchanged",
    )
