"""Choose the label of a file by the probe, and say what the probe finds."""

import shlex
from collections.abc import Iterator, Mapping

from tasks.assess.learnable import Probe
from tasks.assess.wrong_references import WrongShare
from tasks.sources.readers.headers import shown
from tasks.start.roles import KNOWN, Role, Roles, percent, plain_form
from tasks.start.tickets import Tickets

_MOST_UNANSWERED = 0.3
"""Share of the labelled tickets without a reply from which on routing alone is offered."""
_MAX_OFFERED = 3


def best_label(probes: Mapping[str, Probe], label: str, *, is_guess: bool) -> str:
    """The column that is the label: the team's queue if the texts predict it, else the next one that they predict.

    Args:
        probes: Column -> probe, those with the names of queues first.
        label: The column that names and values suggest.
        is_guess: Only its values suggest it; then of all columns the best predicted one is taken.
    """
    known = KNOWN.names["category"]
    others = {name: probe for name, probe in probes.items() if is_guess or plain_form(name) in known}
    if label not in probes or (probes[label].is_predictable and not is_guess):
        return label
    predicted = [name for name, probe in others.items() if probe.is_predictable]
    if is_guess:
        return max(predicted, key=lambda name: others[name].gain, default=label)
    return next(iter(predicted), label)


def other_labels(roles: Roles, probes: Mapping[str, Probe]) -> Iterator[str]:
    """The columns that could be the label instead, each with its figures."""
    figures = {f"{shown(name)}:": probe.figures for name, probe in probes.items()}
    for line in roles.other_labels:
        found = next((each for name, each in figures.items() if line.startswith(name)), "")
        yield f"{line}; {found}" if found else line


def wrong_labels(tickets: Tickets, label: Role | None) -> WrongShare | None:
    """The estimated share of wrong labels that the gate's margin allows for; None if it is small or not known."""
    probe = tickets.probes.get(label.name) if label is not None else None
    return probe.wrong if probe is not None else None


def label_findings(tickets: Tickets, label: Role, *, has_reply: bool) -> Iterator[str]:
    """What the probe says of the label, and what is left to learn; nothing where all is well."""
    probe = tickets.probes.get(label.name)
    if probe is not None and (finding := probe.finding(shown(label.name))):
        offers = ["`--label none` learns the replies alone"] if has_reply else []
        better = [name for name, other in tickets.probes.items() if other.is_predictable and name != label.name]
        better = sorted(better, key=lambda name: -tickets.probes[name].gain)[:_MAX_OFFERED]
        if not probe.is_predictable:
            offers += [f"`--label {shlex.quote(name)}` ({tickets.probes[name].figures})" for name in better]
        yield "; ".join((finding, *offers))
    if wrong := wrong_labels(tickets, label):
        yield (
            f"about {100 * wrong.rate:.0f} % of the labels may be wrong: {wrong.basis}; the gate's margin allows for "
            "it, and `tunegate data suspects` lists them after a run"
        )
    n_unanswered = tickets.n_labelled - tickets.n_labelled_replies
    if has_reply and n_unanswered >= _MOST_UNANSWERED * tickets.n_labelled > 0:
        yield (
            f"{percent(n_unanswered, tickets.n_labelled)} of the rows with a label have no reply and are not learned "
            "from: `--reply none` learns the labels of all of them"
        )
