"""Find a column that holds whole conversations as lists of turns, and who of the speakers is the agent.

A run joins the turns to messages and learns every answer in them (`source.turns`).
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from schemas.file_reading import TurnsSpec
from tasks.sources.readers.headers import is_plain
from tasks.sources.readers.turns import join_turns
from tasks.start.file_profile import Profile

MAX_SPEAKERS = 5
_TEXT_CHARS = 10
"""Median length of the texts from which on they are what someone wrote."""
_AGREE = 0.9
"""Share of the rows that must hold such a list."""


@dataclass(frozen=True)
class TurnList:
    """A column of lists of turns."""

    name: str
    turns: TurnsSpec
    evidence: str


def find_turn_list(profile: Profile, *, speakers: Collection[str], agents: Collection[str]) -> TurnList | None:
    """The first top-level column with lists of turns by customers and agents; None without one.

    Args:
        speakers: Keys that say who wrote a turn, in lower case.
        agents: Words for the company's side, in lower case. Other words may be names of people: they are no evidence.
    """
    for name in profile.top:
        lists = [value for row in profile.rows if isinstance(value := row.get(name), list) and value]
        turns = [turn for value in lists for turn in value if isinstance(turn, dict)]
        if not is_plain(name) or len(lists) < _AGREE * profile.n_sampled or len(turns) < sum(map(len, lists)):
            continue
        text = _text_key(turns)
        for speaker in (key for key in turns[0] if str(key).lower() in speakers):
            said_by = Counter(str(turn.get(speaker)) for turn in turns)
            ours = sorted(each for each in said_by if each.lower() in agents)
            if len(ours) > 1 and any(each.lower() == "system" for each in ours):
                continue  # it instructs the assistant
            if text is None or text == speaker or not ours or not len(ours) < len(said_by) <= MAX_SPEAKERS:
                continue
            spec = TurnsSpec(speaker=str(speaker), text=text, agents=tuple(ours))
            n_answers = sum(turn["role"] == "assistant" for value in lists for turn in _messages(value, spec))
            evidence = f"{len(lists):,} of {profile.n_sampled:,} rows hold a list of turns, with {n_answers:,} answers"
            if n_answers:
                return TurnList(name, spec, evidence)
    return None


def _messages(value: list[object], spec: TurnsSpec) -> Iterator[Mapping[str, str]]:
    joined = join_turns(value, spec)
    yield from joined if isinstance(joined, list) else ()


def _text_key(turns: list[dict[str, object]]) -> str | None:
    """The key of the longest texts."""
    lengths: dict[str, list[int]] = {}
    for turn in turns:
        for key, value in turn.items():
            if isinstance(value, str) and is_plain(key):
                lengths.setdefault(key, []).append(len(value))
    longest = max(lengths, key=lambda key: median(lengths[key]), default=None)
    return longest if longest is not None and median(lengths[longest]) >= _TEXT_CHARS else None
