"""Variants of a section (`source.kind`) that modules outside of `schemas` add.

Such a module is imported when the first pipeline file is read, not before: `--help` must not pay for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Union, get_args

if TYPE_CHECKING:  # pydantic takes a tenth of a second, and every command imports this module
    from schemas.spec import Spec

_modules: list[str] = []  # still to be imported
_added: dict[str, list[type[Spec]]] = {}  # field of a pipeline -> variants that it does not know yet


def add_on_load(module: str) -> None:
    """Import this module, which adds variants, before the next pipeline file is read or its JSON Schema made."""
    _modules.append(module)


def add_variant(field: str, variant: type[Spec]) -> None:
    """Let this field of a pipeline choose one more section, from the next file on that is read."""
    _added.setdefault(field, []).append(variant)


def take_variants(pipeline: type[Spec]) -> None:
    """Give the pipeline what was added. Loading, error messages and the JSON Schema read its fields' types.

    Raises:
        ValueError: two variants of a field have one name.
    """
    while _modules:
        import_module(_modules[-1])  # one that cannot be imported is tried again, not forgotten
        _modules.pop()
    while _added:
        field, added = _added.popitem()
        info = pipeline.model_fields[field]
        key, known = str(info.discriminator), get_args(info.annotation)
        names = [variant_name(each, key) for each in (*known, *added)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"there are two sections `{field}` with `{key}: {twice[0]}`")
        everything: Any = Union[(*known, *added)]
        info.annotation = everything
        pipeline.model_rebuild(force=True)


def variant_name(variant: type[Spec], key: str) -> str:
    """What the choosing key says for this section.

    >>> from schemas.source import FilesSource
    >>> variant_name(FilesSource, "kind")
    'files'
    """
    return str(get_args(variant.model_fields[key].annotation)[0])
