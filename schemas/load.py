"""Load `pipelines.yaml` as typed pipelines, or report all its faults at once.

::

    pipelines.yaml -> diagnostics.read_source -> yaml_text.read_tree -> merge.merge_pipelines
                   -> check.PipelineCheck (environment.py) -> PipelineFile
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from schemas.check import PipelineCheck, ReadableSections
from schemas.diagnostics import ConfigErrors, read_source
from schemas.environment import Substitution
from schemas.errors import ConfigError, TunegateError
from schemas.merge import merge_pipelines
from schemas.names import closest
from schemas.pipeline import DataPipeline, PipelineSpec, with_model
from schemas.registries import load_registries
from schemas.secrets import know_secrets
from schemas.settings_given import GivenSettings
from schemas.yaml_text import MAX_BYTES, MAX_LINE, read_tree

__all__ = ["ConfigErrors", "PipelineFile", "load_file"]


@dataclass(frozen=True)
class PipelineFile:
    """A valid `pipelines.yaml`.

    Attributes:
        path: The path as given; relative paths in the file start from its folder, `root`.
        pipelines: Name -> pipeline with everything that it inherits, in the order of the file.
    """

    path: Path
    pipelines: Mapping[str, DataPipeline]

    @property
    def root(self) -> Path:
        """The folder that the file's relative paths start from."""
        return self.path.absolute().parent

    @property
    def trained(self) -> Mapping[str, PipelineSpec]:
        """The pipelines that train a model."""
        return {name: spec for name, spec in self.pipelines.items() if isinstance(spec, PipelineSpec)}

    def get(self, name: str) -> PipelineSpec:
        """The pipeline of this name, which trains a model.

        Raises:
            ConfigError: TG0104, there is none; TG0159, it is one of data alone.
        """
        return with_model(self.find(name))

    def find(self, name: str) -> DataPipeline:
        """The pipeline of this name, perhaps of data alone.

        Raises:
            ConfigError: TG0104, there is none.
        """
        if name not in self.pipelines:
            hint = closest(name, self.pipelines, "pipelines")
            raise ConfigError(f"no pipeline {name!r}", code="TG0104", where=str(self.path), hint=hint)
        return self.pipelines[name]


def load_file(
    path: Path,
    *,
    environ: Mapping[str, str] = os.environ,
    address_fault: Callable[[str], TunegateError | None] | None = None,
    settings: Sequence[str] = (),
    only: str | None = None,
) -> PipelineFile:
    """Read a pipeline file, check all of it, and report every fault.

    Args:
        environ: Variables for `${env:NAME}`.
        address_fault: Returns what is wrong with the address of a base model; None leaves that to the run.
        settings: `PATH=VALUE` that replace those of the pipeline `only` (`schemas/settings_given.py`).
        only: The pipeline that `settings` are for.

    Raises:
        ConfigErrors: the file or a pipeline in it is wrong. A fault that several pipelines inherit is reported once.
            Its `valid` has the other pipelines, its `readable` the sections that are right.
    """
    load_registries()
    source = read_source(path, max_bytes=MAX_BYTES, max_line=MAX_LINE)
    tree = read_tree(source)
    merged, faults = merge_pipelines(tree, source)
    given = GivenSettings(source, settings)
    merged = [given.over(each) if each.name == only else each for each in merged]
    specs: dict[str, DataPipeline] = {}
    readable: dict[str, ReadableSections] = {}
    places = {pipeline.name: pipeline.root.key for pipeline in merged}
    reported: dict[str, set[tuple[object, ...]]] = {}
    for pipeline in merged:
        check = PipelineCheck(pipeline, given.source, Substitution(given.source, environ), address_fault)
        spec = check.spec()
        if spec is not None:
            specs[pipeline.name] = spec
            know_secrets(environ, named=_named_variables(spec.model_dump()))
        elif check.readable is not None:
            readable[pipeline.name] = check.readable
            know_secrets(environ, named=_named_variables(check.readable.written()))
        reported[pipeline.name] = {finding.repeats for finding in check.findings if finding.repeats is not None}
        known = reported.get(pipeline.parent or "", set())
        faults += [finding.diagnostic for finding in check.findings if finding.repeats not in known]
    valid = MappingProxyType(dict(sorted(specs.items(), key=lambda item: places[item[0]])))
    if faults:
        raise ConfigErrors(map(given.placed, faults), valid, readable)
    return PipelineFile(path, valid)


def _named_variables(value: object) -> Iterator[str]:
    """The variables, which hold secrets, named by keys that end with `_env`."""
    if isinstance(value, dict):
        for key, each in value.items():
            if str(key).endswith("_env") and isinstance(each, str):
                yield each
            else:
                yield from _named_variables(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _named_variables(each)
