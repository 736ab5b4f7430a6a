"""A file of rules for `tunegate gate check --rules FILE`: the gate of results that were made elsewhere.

::

    gates:
      rules:
        - {metric: exact, change_threshold: {mode: refresh, margin: 0.02}}
    metrics:
      - {name: seconds, continuous: true, higher_is_better: false}
"""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from schemas.diagnostics import ConfigErrors, Span, read_source
from schemas.environment import Substitution
from schemas.errors import ConfigError
from schemas.evaluation import EvaluateSpec
from schemas.explain import Explanation, model_keys
from schemas.gates import GatesSpec
from schemas.metrics import MetricTraits
from schemas.registries import load_registries
from schemas.spec import Spec
from schemas.yaml_text import MAX_BYTES, MAX_LINE, Entry, read_tree

_TOP = Span(1, 1, 0)
"""Place of the file as a whole, where a missing section is reported."""


class GateFile(Spec):
    """The sections of a file of rules."""

    gates: GatesSpec
    evaluate: EvaluateSpec = EvaluateSpec()
    """How answers are scored against references."""
    metrics: tuple[MetricTraits, ...] = ()
    """Metrics of the files that are not simply right or wrong: unless declared, higher is better."""


def load_gate_file(path: Path, *, environ: Mapping[str, str] = os.environ) -> GateFile:
    """Read a file of rules.

    Raises:
        ConfigError: TG0103, it declares pipelines.
        ConfigErrors: it is no YAML, cannot be read, or keys, values or variables are wrong; it has all places.
    """
    load_registries()
    source = read_source(path, max_bytes=MAX_BYTES, max_line=MAX_LINE)
    tree = read_tree(source)
    if "pipelines" in tree:
        raise ConfigError(
            "it declares pipelines, and a file of rules has one gate", code="TG0103", where=str(path),
            hint=f"`--pipeline NAME --config {path}` takes the gate of a pipeline",
        )  # fmt: skip
    use = Substitution(source, environ)
    root = Entry(tree, _TOP, _TOP, "")
    report = Explanation(GateFile, root, model_keys(GateFile), source, use)
    try:
        file = GateFile.model_validate(use.data(root), by_alias=True, by_name=False)
        report.explain_confused(file)
    except ValidationError as error:
        report.explain(error.errors(include_url=False))
    faults = [*use.faults, *(finding.diagnostic for finding in report.findings)]
    if faults:
        raise ConfigErrors(faults)
    return file
