"""Render chat templates, which come with a base model and are programs, within limits of time and memory.

Each operator, call, filter, container and turn of a loop spends from a budget of characters, before it makes anything
that is large. It renders as transformers does, in transformers' sandbox.
"""

import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, wraps
from typing import Any

from jinja2 import Environment, Template, nodes
from jinja2.runtime import LoopContext
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from tasks.model.import_once import import_transformers
from tasks.tickets.prompts import Message

MAX_CHARS = 50_000_000
"""Characters that all operations of one rendering may make together, and `PER_CHAR` more per character of its turns."""
PER_CHAR = 100
TIMEOUT_S = 2.0
"""CPU seconds of one rendering, and 1 more per million characters of its turns."""
MAX_BITS = 10_000
"""Bits of an integer. Dividing larger ones, or writing them as digits, takes long in one step, which nothing ends."""
_TURN = 10
"""What a turn of a loop costs, or a call, in characters."""
_REPEAT = ("batch", "center", "expandtabs", "indent", "ljust", "rjust", "slice", "tojson", "wordwrap", "zfill")
"""Filters and methods with a result that grows with a number."""
_CODECS = ("utf-8", "utf8", "ascii", "latin-1", "strict", "ignore", "replace")
"""What `encode` and `decode` may be called with: some codecs take the square of the text's length."""
_WIDTH = re.compile(r"\d{5}|\*|\{[^}]*\{")
"""In a format: a field of 10,000 characters or more, or as wide as an argument says."""


class TemplateTooCostly(Exception):  # noqa: N818
    """A template needs more than its budget of characters, too large an integer, or too much time."""


class _Budget(threading.local):
    """What is left to the rendering of this thread."""

    chars = MAX_CHARS
    until = 0.0
    """This thread's CPU time."""
    n_looked = 0

    def start(self, n_chars: int) -> None:
        self.chars = MAX_CHARS + PER_CHAR * n_chars
        self.until = time.thread_time() + TIMEOUT_S + n_chars / 1e6

    def spend(self, chars: int) -> None:
        self.chars -= chars + 1
        self.n_looked += 1
        # The clock is a system call, so not each time.
        if self.chars < 0 or (not self.n_looked & 63 and time.thread_time() > self.until):
            raise TemplateTooCostly

    def afford(self, chars: int) -> None:
        """Refuse what is about to make too much."""
        if chars > self.chars:
            raise TemplateTooCostly


_budget = _Budget()


def render_limited(template: str, turns: Sequence[Message], variables: Mapping[str, Any]) -> str:
    """The text of a conversation.

    Args:
        template: Jinja, as transformers knows it.
        turns: Roles and contents.
        variables: What the template may use besides `messages`.

    Raises:
        TemplateTooCostly: it needs more than `MAX_CHARS`, `MAX_BITS` or `TIMEOUT_S`.
        jinja2.TemplateError: it is no template, or refuses the turns; also TypeError, ValueError, LookupError,
            ArithmeticError and RecursionError, by its own mistakes.
    """
    _budget.start(sum(len(turn["content"]) for turn in turns))
    messages = [{name: value for name, value in turn.items() if value is not None} for turn in turns]
    return _compiled(template).render(messages=messages, tools=None, documents=None, **variables)


@lru_cache(maxsize=32)
def _compiled(template: str) -> Template:
    import_transformers()
    from transformers.utils.chat_template_utils import _compile_jinja_template

    environment = _compile_jinja_template("").environment.overlay()
    environment.__class__ = type("LimitedEnvironment", (_Limits, type(environment)), {})
    filters = {name: _limited_filter(name, each) for name, each in environment.filters.items()}
    environment.filters = {**filters, "_turns": _turns, "_weighed": _weighed, "_joined": _joined}
    environment.globals = {name: each for name, each in environment.globals.items() if name != "lipsum"}
    environment.finalize = lambda value: value if type(value) is str else _weighed(value)
    tree = _Metered().visit(environment.parse(template))
    code = environment.compile(tree)
    return Template.from_code(environment, code, environment.globals)


class _Limits(Environment):
    """Put before a sandboxed environment, whose hooks it uses."""

    intercepted_binops = frozenset({"+", "-", "*", "**", "//", "%"})

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        found = list(parts)
        _budget.spend(sum(map(len, found)))
        return "".join(found)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            sizes = (_size(left), _size(right))
            if not (isinstance(left, int) and isinstance(right, int)):
                _budget.afford(sizes[0] * sizes[1])
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            _check_bits(abs(right) * left.bit_length())
        elif operator == "%" and isinstance(left, str):
            _check_format(left, right)
        return _weighed(super().call_binop(context, operator, left, right))  # type: ignore[misc]

    def call(self, context: Any, called: Any, *arguments: Any, **named: Any) -> Any:
        method = getattr(called, "__wrapped__", called)  # `format` is wrapped by the sandbox
        owner = getattr(method, "__self__", None)
        if isinstance(called, LoopContext):
            arguments = tuple(map(_turns, arguments))
        elif isinstance(owner, str) and method.__name__ == "join" and len(arguments) == 1:
            arguments = (list(arguments[0]),)
            _check_growth("join", arguments[0], (owner,))
        elif isinstance(owner, str | bytes | int):
            _check_growth(method.__name__, owner, (*arguments, *named.values()))
        return _weighed(super().call(context, called, *arguments, **named))  # type: ignore[misc]


class _Metered(NodeTransformer):
    """Meters what the environment has no hook for: loops, containers and `~`."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  jinja2 calls it by the node's name
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "_turns")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "_joined")

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, "_weighed")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, "_weighed") if node.ctx == "load" else node

    visit_Dict = visit_List  # noqa: N815

    def visit_Const(self, node: nodes.Const) -> nodes.Node:  # noqa: N802
        if isinstance(node.value, int):
            _check_bits(node.value.bit_length())
        return node


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _limited_filter(name: str, plain: Any) -> Any:
    skipped = 1 if hasattr(plain, "jinja_pass_arg") else 0  # the context

    @wraps(plain)
    def limited(*arguments: Any, **named: Any) -> Any:
        value, *others = arguments[skipped:]
        if name == "join":
            value = list(value)
        _check_growth(name, value, (*others, *named.values()))
        return _weighed(plain(*arguments[:skipped], value, *others, **named))

    return limited


def _check_growth(name: str, value: Any, arguments: Sequence[Any]) -> None:
    """Refuse a filter or method that is about to make too much of a value."""
    if name in _REPEAT:
        numbers = [abs(each) for each in arguments if isinstance(each, int)]
        _budget.afford((_size(value) + 1) * max(numbers, default=1))
    elif name in ("round", "to_bytes"):
        _check_bits(max((abs(each) for each in arguments if isinstance(each, int)), default=0))
    elif name in ("encode", "decode"):
        if any(each not in _CODECS for each in arguments):
            raise TemplateTooCostly
    elif name == "replace" and len(arguments) > 1:
        _budget.afford((_size(value) // max(1, _size(arguments[0])) + 1) * _size(arguments[1]))
    elif name == "join":
        _weigh(value)
        separator = next(iter(arguments), "")
        _budget.afford(_size(value) * _size(separator) if isinstance(separator, str) else 0)
    elif name in ("format", "format_map"):
        _check_format(value, arguments)
    elif name in ("string", "pprint", "urlize", "xmlattr"):
        _weigh(value)


def _check_format(text: Any, values: Any) -> None:
    if _WIDTH.search(str(text)):
        raise TemplateTooCostly
    _weigh(values)


def _check_bits(n_bits: int) -> None:
    if n_bits > MAX_BITS:
        raise TemplateTooCostly


def _size(value: Any) -> int:
    """How often a value repeats another one, or how long it is."""
    if isinstance(value, int):
        return abs(value)
    return len(value) if isinstance(value, str | bytes | list | tuple | dict) else 1


def _weigh(value: Any) -> None:
    """Spend what a value takes as text, with all that it contains, as often as it contains it."""
    if isinstance(value, str | bytes):
        _budget.spend(len(value))
    elif isinstance(value, int):
        _check_bits(value.bit_length())
        _budget.spend(1)
    elif isinstance(value, list | tuple | set | frozenset):
        _budget.spend(len(value))
        for each in value:
            _weigh(each)
    elif isinstance(value, dict):
        _budget.spend(len(value))
        for name, each in value.items():
            _weigh(name)
            _weigh(each)
    elif isinstance(value, Namespace):
        _weigh(object.__getattribute__(value, "_Namespace__attrs"))
    else:
        _budget.spend(1)


def _weighed(value: Any) -> Any:
    if type(value) is str:  # most are
        _budget.spend(len(value))
        return value
    _weigh(value)
    return _turns(value) if isinstance(value, Iterator) else value


def _turns(values: Iterable[Any]) -> Iterator[Any]:
    for each in values:
        _budget.spend(_TURN)
        yield each


def _joined(parts: list[Any]) -> str:
    _weigh(parts)
    return "".join(map(str, parts))
