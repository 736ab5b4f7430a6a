"""Hold what a small budget of examples would block: labels that are hardly trained are the budget's fault.

A step counts the labels; `tasks/assess/gate.py` applies the count. Only in runs whose number of examples was limited
for that run alone, as `tunegate try` does. Nothing is promoted by it: HOLD is the better of the two verdicts, and every
rule is judged as ever.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from schemas.artifacts import CheckEvidence, DatasetRef, Splits
from schemas.counted import counted
from schemas.curation_card import FEW
from schemas.verdicts import Finding
from tasks.step import as_step
from tasks.storage.files import write_json
from tasks.tickets.encoded import encoded_ids

FEW_EXAMPLES = "few_examples"


@as_step(FEW_EXAMPLES, libraries=("pyarrow",))
def count_few(out: Path, *, splits: Splits, dataset: DatasetRef, field: str) -> CheckEvidence:
    """Write `evidence.json`: how many labels of `field` have fewer than five examples because of the budget.

    A label that has fewer train tickets than that counts only if not all of them were encoded.
    """
    table = pq.read_table(splits.train, columns=["ticket_id", field]).to_pydict()
    labels = dict(zip(table["ticket_id"], table[field], strict=True))
    known = Counter(label for label in labels.values() if label is not None)
    used = Counter(labels.get(name) for name in encoded_ids(dataset.root / "train"))
    few = sum(used[label] < min(FEW, n) for label, n in known.items())
    values = {"n_labels": float(len(known)), "n_few": float(few), "n_examples": float(dataset.n_train)}
    write_json(out / "evidence.json", values)
    return CheckEvidence(root=out, check=FEW_EXAMPLES, n_items=dataset.n_train, values=values)


def hold_blocked(findings: Iterable[Finding], evidence: Sequence[CheckEvidence]) -> Iterator[Finding]:
    """Yield the findings, with HOLD in place of BLOCK where the budget left labels with too few examples."""
    found = next((each for each in evidence if each.check == FEW_EXAMPLES), None)
    n_few, n_labels = (0, 0) if found is None else (int(found.values[name] or 0) for name in ("n_few", "n_labels"))
    for finding in findings:
        if found is None or not n_few or finding.verdict != "BLOCK":
            yield finding
            continue
        measured = finding.reason.removesuffix(".").partition("; only a better candidate can pass")[0]
        labels = f"{n_few} of {counted(n_labels, 'label')} {'has' if n_few == 1 else 'have'}"
        reason = (
            f"{measured}; but of the {found.n_items:,} examples of this run {labels} fewer than {FEW}, so this shows "
            "what the budget can do, and not what a training on all tickets can."
        )
        yield finding.model_copy(update={"verdict": "HOLD", "reason": reason})
