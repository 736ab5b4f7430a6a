"""Kinds that other installed packages add: sources, curation steps, metrics, checks of the gate, formats of an export.

A package names a module for each of its kinds, under the name that pipelines.yaml or the command uses:

    [project.entry-points."tunegate.sources"]
    feed = "acme_tickets.feed"

The module is written like ours of the same registry. A plug-in that cannot be loaded is an error even if no pipeline
uses it: left out silently, its check of the gate would be missed, and its kind would look like a spelling mistake.
"""

import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from schemas.curation_steps import CURATION_STEPS
from schemas.errors import ConfigError
from schemas.gates import GatesSpec
from schemas.metrics import METRICS
from schemas.source import SOURCES
from tasks.release.export_format import format_names
from tasks.sources.registry import register

KINDS: dict[str, tuple[Callable[[str], object], Callable[[], Iterable[str]]]] = {
    "tunegate.sources": (register, lambda: SOURCES),
    "tunegate.steps": (import_module, lambda: CURATION_STEPS),
    "tunegate.metrics": (import_module, lambda: METRICS),
    "tunegate.checks": (import_module, lambda: GatesSpec.model_fields),
    "tunegate.exports": (import_module, format_names),
}
"""Group of entry points -> what adds the kind of a module, and the names of all kinds."""
OURS = ("flows", "schemas", "tasks")
_loaded: dict[tuple[str, str], str] = {}
"""Group and name of a kind -> the module that added it."""


def load_plugins(*groups: str) -> None:
    """Add the kinds of all installed plug-ins of these groups; those that were added before have no effect.

    Raises:
        ConfigError: TG0113, one cannot be loaded, has the name of another kind, or does not add the kind that it names.
    """
    for group in groups:
        for point in sorted(entry_points(group=group), key=lambda each: (each.name, each.value)):
            if point.attr and group == "tunegate.metrics":
                continue  # a function, for `uses: entry_point` (tasks/assess/user_metrics.py)
            known = _loaded.get((group, point.name))
            if known != point.value:
                _load(point, taken=known or (point.name in KINDS[group][1]() and "tunegate"))
                _loaded[group, point.name] = point.value


def load_kinds() -> None:
    """Add the kinds that pipelines.yaml can name."""
    load_plugins("tunegate.sources", "tunegate.steps", "tunegate.metrics", "tunegate.checks")


def _load(point: EntryPoint, *, taken: str | bool) -> None:
    add, names = KINDS[point.group]
    if taken:
        raise _fault(point, f"{taken} has a kind of this name already")
    if point.attr or point.module.partition(".")[0] in OURS:
        raise _fault(point, f"`{point.value}` must be a module of the package's own")
    try:
        add(point.module)
    except (Exception, SystemExit) as error:
        why = str(error).partition("\n")[0][:200]
        raise _fault(point, f"{type(error).__name__}: {why}") from error
    if point.name not in names():
        raise _fault(point, f"{point.module} adds no kind of this name")


def _fault(point: EntryPoint, why: str) -> ConfigError:
    package = point.dist.name if point.dist else "?"
    named = f"{package} {point.dist.version}" if point.dist else "an unknown package"
    return ConfigError(
        f"the plug-in `{point.name}` of {named} cannot be used: {why}",
        code="TG0113",
        where=f"{point.group}, {point.value}",
        hint=f"install a version that fits, or remove it: uv pip uninstall --python {sys.executable} {package}",
    )


def is_plugin(module: str) -> bool:
    """Whether this module belongs to a package that has added a kind."""
    top = module.partition(".")[0]
    return any(value.partition(".")[0] == top for value in _loaded.values())
