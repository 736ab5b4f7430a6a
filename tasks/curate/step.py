"""Makes a function of `tasks/curate` a kind of curation step; see `length.py` for one with all its parts.

    class ShoutStep(CurationStepSpec):
        uses: Literal["shout"]
        max_caps_share: float = 0.5

    @curation_step(ShoutStep)
    @as_step("shout", libraries=("pyarrow",))
    def drop_shouting(out: Path, *, tickets: TicketTable, step: ShoutStep) -> TicketTable:

The settings are keys of `curate.steps` from then on; their attributes say where the step may come in the order. The
function writes what it keeps and what it removed, with a reason for each row (`tasks/curate/drop.py`); funnel, card and
quarantine show what it wrote. Heavy imports are inside functions, since a plan imports every step. It knows none of the
steps: `steps.py` lists them.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from schemas.artifacts import TicketTable
from schemas.curation_steps import CURATION_STEPS, CurationStepSpec
from schemas.tables import Relations
from tasks.step import info_of

P = ParamSpec("P")
S = TypeVar("S", bound=CurationStepSpec)


@dataclass(frozen=True)
class StepKind:
    """How a kind of step is run. Its function takes, of these, what it has parameters for:

    `tickets`, `step`, `root` (the folder of pipelines.yaml), `spread` (who else does parts of the work), `tables` (the
    named tables that occur in its SQL), `kept` (corrections, if they keep a ticket in spite of one of its rules) and
    `perplexities` (of the base model; None unless the step declares
    `perplexity: true`).
    """

    run: Callable[..., TicketTable]
    joined: str
    """Parameter that takes all steps of the kind that follow each other; empty: each is run by itself."""
    arguments: Callable[[Any, Path], Mapping[str, Any]]
    """Further arguments, from the settings and `root`."""
    reads: Callable[[Any, Path], Mapping[str, Any]]
    """Digests of what decides the result besides the arguments."""
    libraries: Callable[[Any], tuple[str, ...]]
    """Distributions that decide the result with these settings, besides those that the function declares."""
    check: Callable[[Any, Path, str, Relations], object]
    """Raises what a run would raise about the settings; runs nothing. Its third argument begins the error's place, the
    last has the columns of the named tables that the step reads."""
    sql: Callable[[Any, Path], str]
    """SQL of the user's, in which named tables may occur; empty without."""
    rules: Callable[[Any], tuple[str, ...]]
    """Codes under which it removes a row and may not where a correction keeps the ticket; its function then takes
    `kept`, the result of the step `corrections`."""
    advise: Callable[[Any, Path], Iterable[str]]
    """Sentences about valid settings that probably do not do what the user wants."""

    @property
    def name(self) -> str:
        """Its name in the graph and in the funnel."""
        return info_of(self.run).name

    def arguments_of(
        self, group: tuple[CurationStepSpec, ...], offered: Mapping[str, Callable[[], Any]], *, root: Path
    ) -> dict[str, Any]:
        """Return what its function takes for this step, or for several that it joins.

        Args:
            offered: Parameter -> gives what else there is; called only for parameters that the function has.
            root: Folder of pipelines.yaml.
        """
        given = {"step": lambda: group[0], "root": lambda: root, self.joined: lambda: group, **offered}
        taken = inspect.signature(self.run).parameters
        arguments = {name: give() for name, give in given.items() if name in taken}
        return {**arguments, **self.arguments(group[0], root)}


_KINDS: dict[type[CurationStepSpec], StepKind] = {}


def curation_step(
    spec: type[S],
    *,
    joined: str = "",
    arguments: Callable[[S, Path], Mapping[str, Any]] = lambda _step, _root: {},
    reads: Callable[[S, Path], Mapping[str, Any]] = lambda _step, _root: {},
    libraries: Callable[[S], tuple[str, ...]] = lambda _step: (),
    check: Callable[[S, Path, str, Relations], object] = lambda _step, _root, _where, _tables: None,
    sql: Callable[[S, Path], str] = lambda _step, _root: "",
    rules: Callable[[S], tuple[str, ...]] = lambda _step: (),
    advise: Callable[[S, Path], Iterable[str]] = lambda _step, _root: (),
) -> Callable[[Callable[P, TicketTable]], Callable[P, TicketTable]]:
    """Register the function for these settings; the options are the fields of `StepKind`."""

    def register(run: Callable[P, TicketTable]) -> Callable[P, TicketTable]:
        CURATION_STEPS.add(spec)
        _KINDS[spec] = StepKind(run, joined, arguments, reads, libraries, check, sql, rules, advise)
        return run

    return register


def kind_of(step: CurationStepSpec) -> StepKind:
    """How this step is run.

    Raises:
        LookupError: No function is registered for its kind: its file is not in `tasks/curate/steps.py`.
    """
    return _KINDS[type(step)]


def rules_of(declared: Iterable[CurationStepSpec]) -> tuple[str, ...]:
    """Return the rules in spite of which a ticket can be kept, in the order of the steps."""
    return tuple(dict.fromkeys(rule for step in declared for rule in kind_of(step).rules(step)))
