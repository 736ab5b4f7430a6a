"""A typed graph: nodes are plain functions, edges are the handles that pass between them.

`graph.add(function, ...)` calls nothing. It checks the arguments against the function's signature, adds a node and
returns a handle that represents the future result; mypy takes the handle for the result itself, so a wrong type is
found before anything runs. The graph knows nothing about where results are stored, who runs the nodes, or Prefect.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Literal,
    ParamSpec,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from schemas.artifacts import Artifact, ArtifactGroup
from tasks.step import StepInfo, info_of

P = ParamSpec("P")
A = TypeVar("A", bound=Artifact)
T = TypeVar("T")
Kind = Literal["step", "effect", "expand"]
GIVEN = ("out", "scratch", "progress", "limit")
"""Arguments that the runner passes."""
SEPARATOR = " · "


class Handle:
    """Represents the result of a node that has not run. Only `Graph` creates one."""

    def __init__(self, node: str, returns: Any, graph: Graph) -> None:
        self.node = node
        self.returns = returns
        self.graph = graph

    def __repr__(self) -> str:
        return f"<{_type_name(self.returns)} of {self.node!r}>"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            raise LookupError(f"{self.node!r} has no result yet, so no {name}\nhint: read it in a step or in `expand`")


@dataclass(frozen=True)
class Condition:
    """Leaves nodes out: `why(results)` returns the reason, or None to run them."""

    why: Callable[..., str | None]
    values: tuple[Any, ...]
    """Handles, or results that exist already (of an earlier run, say)."""


@dataclass(frozen=True)
class Scope:
    """What the nodes of a `with` block have in common."""

    stage: str = ""
    unless: tuple[Condition, ...] = ()
    after: tuple[Handle, ...] = ()
    """What the nodes wait for besides their inputs: also what the `expand` which added them depended on."""
    stays: bool = False
    """Where the stage runs on a work pool, the nodes run on the machine of the run."""

    @property
    def handles(self) -> tuple[Handle, ...]:
        return (*(handle for condition in self.unless for handle in handles_in(condition.values)), *self.after)


@dataclass(eq=False)
class Node:
    """One unit of work, and of reuse if it is a step."""

    name: str
    """Unique in the graph, for people: `answers · champion`."""
    function: Callable[..., Any]
    returns: Any
    arguments: dict[str, Any]
    scope: Scope
    kind: Kind
    info: StepInfo
    reads: Mapping[str, Any] = field(default_factory=dict)
    """Name -> digest of what the function reads besides its arguments (a user's file, a metric's code). In the key."""
    tolerates: tuple[str, ...] = ()
    """Codes of deterministic errors that leave the node without a result instead of ending the run."""
    kept: Artifact | None = None
    """Its result, if an earlier run made it (`Naming.keep`): the function is not called."""

    @property
    def id(self) -> str:
        """The name in ledger and store: `answers_champion`."""
        return self.name.replace(SEPARATOR, "_")

    @property
    def stage(self) -> str:
        return self.scope.stage

    @property
    def folder(self) -> str:
        """The store's folder: steps of one kind share their results."""
        return self.info.name

    @property
    def handles(self) -> tuple[Handle, ...]:
        """Handles among the arguments."""
        return tuple(handle for value in self.arguments.values() for handle in handles_in(value))

    @property
    def inputs(self) -> dict[str, Any]:
        """Arguments, and members of groups (`judged.champion`), that are handles or artifacts, or tuples of them."""
        return {name: value for name, value in members(self.arguments) if is_input(value)}

    @property
    def params(self) -> dict[str, Any]:
        """Arguments that are values and part of the key."""
        return {
            name: value
            for name, value in self.arguments.items()
            if not is_input(value) and not isinstance(value, ArtifactGroup) and name not in self.info.context
        }

    def takes(self, name: str) -> bool:
        """Return whether the function takes this argument, which the runner passes."""
        return name in _signature(self.function).parameters

    def accepts_none(self, argument: str) -> bool:
        """Return whether the input may be None, so that the node runs without one that was left out."""
        name, _, member = argument.partition(".")
        hint = get_type_hints(type(self.arguments[name]))[member] if member else _hints(self.function)[name]
        return get_origin(hint) in (Union, UnionType) and type(None) in get_args(hint)


@dataclass(frozen=True)
class Naming:
    """Adds nodes under an explicit name; see `Graph.named`."""

    graph: Graph
    name: str
    reads: Mapping[str, Any]
    libraries: tuple[str, ...]
    tolerates: tuple[str, ...]

    def add(self, function: Callable[Concatenate[Path, P], A], /, *args: P.args, **kwargs: P.kwargs) -> A:
        """Like `Graph.add`."""
        node = self.graph.bind(function, args, kwargs, kind="step", name=self.name)
        info = replace(node.info, libraries=(*node.info.libraries, *self.libraries))
        node = replace(node, info=info, reads=self.reads, tolerates=self.tolerates)
        return cast("A", self.graph.enter(node))

    def keep(self, function: Callable[..., A], result: A) -> A:
        """Add a step of this kind with the result of an earlier run, under the key that it has; make nothing."""
        node = Node(self.name, function, type(result), {}, self.graph.scope, "step", info_of(function), kept=result)
        return cast("A", self.graph.enter(node))

    def expand(self, build: Callable[Concatenate[Graph, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Like `Graph.expand`."""
        node = self.graph.bind(build, args, kwargs, kind="expand", name=self.name)
        return cast("T", self.graph.enter(node))

    def effect(self, function: Callable[Concatenate[Any, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Like `Graph.effect`."""
        node = self.graph.bind(function, args, kwargs, kind="effect", name=self.name)
        return cast("T", self.graph.enter(node))


@dataclass
class Graph:
    """Nodes in the order in which they were added, which is a valid order to run them in."""

    nodes: dict[str, Node] = field(default_factory=dict)
    scope: Scope = Scope()
    became: dict[str, str] = field(default_factory=dict)
    """Name of an expanding node -> the node whose result it has."""
    reader: Callable[[Handle], Any] | None = None
    """Set by whatever runs or plans the graph."""

    def add(self, function: Callable[Concatenate[Path, P], A], /, *args: P.args, **kwargs: P.kwargs) -> A:
        """Add a step: `function(out, **arguments)`. A handle among the arguments is an edge.

        Raises:
            TypeError: an argument is missing, misspelt or of the wrong type; the name is taken; it is not a step.
        """
        return cast("A", self.enter(self.bind(function, args, kwargs, kind="step")))

    def effect(self, function: Callable[Concatenate[Any, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Add a function with side effects and no stored result: `function(run, **arguments)`, called in every run.

        `run` is `Run.live`.
        """
        return cast("T", self.enter(self.bind(function, args, kwargs, kind="effect")))

    def expand(self, build: Callable[Concatenate[Graph, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Add nodes that are known only once earlier results exist.

        `build(graph, **arguments)` is called with the handles once all have their results, which it reads with
        `graph.read`. It adds nodes and returns the handle of the final one, or an earlier handle.
        """
        return cast("T", self.enter(self.bind(build, args, kwargs, kind="expand")))

    def named(
        self,
        *parts: str,
        reads: Mapping[str, Any] | None = None,
        libraries: tuple[str, ...] = (),
        tolerates: tuple[str, ...] = (),
    ) -> Naming:
        """Give a node a name and more: `graph.named("answers", arm).add(generate_answers, ...)` is `answers · arm`.

        Args:
            parts: The name; empty parts are left out.
            reads: Digests of what the function reads besides its arguments.
            libraries: Distributions that the result depends on, besides those that the function declares.
            tolerates: Codes of errors that leave the node without a result.
        """
        return Naming(self, SEPARATOR.join(filter(None, parts)), dict(reads or {}), libraries, tolerates)

    def read(self, handle: T) -> T:
        """Return the result of a handle. For functions that `expand` calls.

        Raises:
            LookupError: there is none.
        """
        if not isinstance(handle, Handle):
            return handle
        if self.reader is None:
            raise LookupError(f"{handle.node!r} has no result: this graph is not being run")
        return cast("T", self.reader(handle))

    def find(self, handle: T) -> T | None:
        """Like `read`; None for a node that was left out."""
        try:
            return self.read(handle)
        except LookupError:
            return None

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Put the nodes of the block into this stage."""
        return self._within(stage=name)

    def unless(self, why: Callable[..., str | None], *values: Any) -> AbstractContextManager[None]:
        """Leave out the nodes of the block if `why(*results)` returns a reason; results that were left out are None.

        Args:
            why: Called with the results of the handles, and with other values unchanged.
            values: Handles, or results that exist already.
        """
        return self._within(unless=(*self.scope.unless, Condition(why, values)))

    def after(self, *handles: Any) -> AbstractContextManager[None]:
        """Start the nodes of the block only once these have ended, although they need no result of them."""
        return self._within(after=(*self.scope.after, *(each for each in handles if isinstance(each, Handle))))

    def staying(self) -> AbstractContextManager[None]:
        """Keep the nodes of the block on the machine of the run where their stage runs on a work pool."""
        return self._within(stays=True)

    def expand_now(self, node: Node) -> None:
        """Replace an expanding node by the nodes that it adds, now that its inputs exist."""
        before = list(self.nodes)
        place = before.index(node.name)
        del self.nodes[node.name]
        with self._within(**vars(replace(node.scope, after=(*node.scope.after, *node.handles)))):
            handle = node.function(self, **node.arguments)
        if not isinstance(handle, Handle):
            raise TypeError(f"{node.name}: {node.function.__qualname__} must return a handle, got {handle!r:.200}")
        self._check_ours(handle, where=node.name)
        if not _fits(handle, node.returns):
            expected = _type_name(node.returns)
            raise TypeError(f"{node.name}: {node.function.__qualname__} must return {expected}, got {handle!r}")
        if handle.node != node.name:
            self.became[node.name] = handle.node
        new = [name for name in self.nodes if name not in before or name == node.name]
        order = (*before[:place], *new, *before[place + 1 :])
        self.nodes = {name: self.nodes[name] for name in order}

    def name_of(self, handle: Handle) -> str:
        """Return the node that makes the handle's result."""
        name = handle.node
        while name in self.became:
            name = self.became[name]
        return name

    def at(self, handle: Handle) -> Node:
        """Return the node that makes the handle's result."""
        return self.nodes[self.name_of(handle)]

    def inputs_of(self, node: Node) -> list[Node]:
        """Return the nodes whose results are arguments of the node, each once."""
        return list(dict.fromkeys(self.at(handle) for handle in node.handles))

    def parents(self, node: Node) -> list[Node]:
        """Return the sources of edges into the node: its inputs, and its conditions unless an input depends on them."""
        data = self.inputs_of(node)
        control = list(dict.fromkeys(self.at(handle) for handle in node.scope.handles))
        if not control:
            return data
        above = self.ancestors(*data)
        return [*data, *(each for each in control if each not in above and each not in data)]

    def ancestors(self, *nodes: Node) -> set[Node]:
        """Return all nodes from which a path leads to one of these."""
        found: set[Node] = set()
        waiting = list(nodes)
        while waiting:
            node = waiting.pop()
            new = {self.at(handle) for handle in (*node.handles, *node.scope.handles)} - found
            found |= new
            waiting += new
        return found

    def edges(self) -> list[tuple[str, str]]:
        """Return (from, to) by name, in the order of the nodes."""
        return [(parent.name, node.name) for node in self.nodes.values() for parent in self.parents(node)]

    def stages(self) -> list[str]:
        """Return the names of the stages, in order."""
        return list(dict.fromkeys(node.stage for node in self.nodes.values()))

    def stages_above(self, stage: str) -> set[str]:
        """Return the stages from which edges lead into this one."""
        return {parent.stage for node in self.of_stage(stage) for parent in self.parents(node)} - {stage}

    def of_stage(self, stage: str) -> list[Node]:
        return [node for node in self.nodes.values() if node.stage == stage]

    def bind(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        kind: Kind,
        name: str = "",
    ) -> Node:
        """Check a call and return its node, which is not in the graph yet."""
        info = info_of(function) if kind == "step" else StepInfo(name or function.__name__)
        arguments = _bound(function, args, kwargs, where=name or info.name, kind=kind)
        return Node(name or info.name, function, _hints(function)["return"], arguments, self.scope, kind, info)

    def enter(self, node: Node) -> Handle:
        """Put the node into the graph and return its handle."""
        if node.name in self.nodes or node.name in self.became:
            raise TypeError(f"two nodes are named {node.name!r}\nhint: distinguish them by `graph.named(...)`")
        for handle in (*node.handles, *node.scope.handles):
            self._check_ours(handle, where=node.name)
        self.nodes[node.name] = node
        return Handle(node.name, node.returns, self)

    def _check_ours(self, handle: Handle, *, where: str) -> None:
        if handle.graph is not self or self.name_of(handle) not in self.nodes:
            raise TypeError(f"{where}: {handle!r} does not belong to this graph")

    @contextmanager
    def _within(self, **changes: Any) -> Iterator[None]:
        outer, self.scope = self.scope, replace(self.scope, **changes)
        try:
            yield
        finally:
            self.scope = outer


def members(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the arguments by name, with the members of a group in its place: `judged.champion`."""
    for name, value in arguments.items():
        if isinstance(value, ArtifactGroup):
            yield from ((f"{name}.{member}", each) for member, each in vars(value).items())
        else:
            yield name, value


def handles_in(value: Any) -> tuple[Handle, ...]:
    """Return the handles of an argument: one, those of a tuple or group, or none."""
    if isinstance(value, Handle):
        return (value,)
    if isinstance(value, ArtifactGroup):
        return tuple(handle for each in vars(value).values() for handle in handles_in(each))
    if isinstance(value, tuple):
        return tuple(item for item in value if isinstance(item, Handle))
    return ()


def is_input(value: Any) -> bool:
    """Return whether the argument is a result, of this run or an earlier one, or a tuple of results."""
    if isinstance(value, tuple):
        return bool(value) and all(isinstance(item, Handle | Artifact) for item in value)
    return isinstance(value, Handle | Artifact)


@lru_cache(maxsize=1024)
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


@lru_cache(maxsize=1024)
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    return get_type_hints(function)


def _bound(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], *, where: str, kind: Kind
) -> dict[str, Any]:
    """Return the arguments by name, without those that the runner passes.

    Raises:
        TypeError: the call does not fit the signature.
    """
    signature, hints = _signature(function), _hints(function)
    first = next(iter(signature.parameters))
    given = [first, *(name for name in GIVEN if kind == "step" and name in signature.parameters)]
    for name in given:
        if name in kwargs:
            raise TypeError(f"{where}: {name} is passed by the runner")
    rest = {name: None for name in given[1:] if name != first}
    try:
        bound = signature.bind(None, *args, **{**rest, **kwargs}).arguments
    except TypeError as error:
        raise TypeError(f"{where}: {error}; {function.__qualname__} takes {_shown(signature, given)}") from None
    arguments = {name: value for name, value in bound.items() if name not in given}
    for name, value in arguments.items():
        if not _fits(value, hints[name]):
            got = repr(value) if isinstance(value, Handle) else f"{type(value).__name__} {value!r:.100}"
            raise TypeError(f"{where}: {name} must be {_type_name(hints[name])}, got {got}")
    return arguments


def _shown(signature: inspect.Signature, given: Collection[str]) -> str:
    return ", ".join(
        name if parameter.default is parameter.empty else f"{name}=..."
        for name, parameter in signature.parameters.items()
        if name not in given
    )


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def _fits(value: Any, hint: Any) -> bool:
    """Return whether the value fits the annotation, as far as handles, artifacts and scalars go."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if kind is Literal:
        return value in parts
    if isinstance(value, Handle):
        return _is_subclass(value.returns, kind)
    if isinstance(value, ArtifactGroup):
        hints = get_type_hints(type(value))
        return isinstance(value, kind) and all(_fits(each, hints[name]) for name, each in vars(value).items())
    if kind is tuple and isinstance(value, tuple):
        if len(parts) == 2 and parts[1] is Ellipsis:
            return all(_fits(item, parts[0]) for item in value)
        return not parts or (len(parts) == len(value) and all(map(_fits, value, parts)))
    if not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
        return True
    if kind is float:
        return isinstance(value, float | int)
    if isinstance(value, tuple) and issubclass(kind, Collection) and len(parts) == 1:
        return isinstance(value, kind) and all(_fits(item, parts[0]) for item in value)
    return isinstance(value, kind)


def _is_subclass(returns: Any, kind: Any) -> bool:
    if get_origin(returns) in (Union, UnionType):
        return all(_is_subclass(part, kind) for part in get_args(returns))
    if returns is type(None) or returns is None:
        return kind in (type(None), None)
    return kind is Any or (isinstance(returns, type) and isinstance(kind, type) and issubclass(returns, kind))
