"""JSON's words for kinds of values, for messages."""

from decimal import Decimal


def kind_of(value: object) -> str:
    """JSON's word for the kind of a value.

    >>> kind_of(True), kind_of([]), kind_of(None)
    ('boolean', 'list', 'null')
    """
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float() | Decimal():
            return "number"
        case str():
            return "text"
        case list():
            return "list"
        case dict():
            return "object"
        case _:
            return type(value).__name__
