"""Bundle a candidate for serving: its weights, its prompt, its decoding and its base model.

The bundle's digest is the identity of a registered version (`flows/ledger/champions.py`), so nothing of a verdict is in
it: a candidate that is judged twice is one version. The base model itself is not copied, but pinned by the sha256 of
its files.
"""

import shutil
from pathlib import Path

import orjson

from schemas.artifacts import (
    Artifact,
    BundleRef,
    CertifiedRef,
    CorpusRef,
    LabelSet,
    ModelRef,
    ServedCertificate,
    TrainedRef,
)
from schemas.errors import StorageError
from schemas.evaluation import DecodingSpec
from schemas.release import ServingSpec
from schemas.training import PromptSpec
from tasks.corpus.search import index_files
from tasks.model.chat_base import CHAT_FILES, RECORD
from tasks.step import as_step
from tasks.storage.files import sha256_file, write_json
from tasks.storage.sealed_folder import MANIFEST, verify

STORE_FILES = frozenset({MANIFEST, "artifact.json"})
NOT_SERVED = STORE_FILES | {"curves.parquet", "validation_answers.parquet"}


@as_step("bundle", libraries=("safetensors",))
def bundle_candidate(
    out: Path,
    *,
    trained: TrainedRef,
    model: ModelRef,
    name: str,
    prompt: PromptSpec,
    decoding: DecodingSpec,
    corpus: CorpusRef | None = None,
    certificate: CertifiedRef | None = None,
    labels: LabelSet | None = None,
) -> BundleRef:
    """Copy the candidate's files and add `serving.json`; if its prompt shows passages, the index of the corpus too.

    Args:
        certificate: Of the candidate's labels: what is routed is a part of what serves, and moves with the version.
        labels: That the certificate is about.

    Raises:
        StorageError: the candidate has no weights.
    """
    for source in _files(trained.root):
        if source.name not in NOT_SERVED:
            shutil.copyfile(source, out / source.name)
    if not any(path.suffix == ".safetensors" for path in out.iterdir()):
        raise StorageError("the candidate has no weights", code="TG0510", where=str(trained.root))
    shown = corpus if prompt.shows_passages else None
    if shown is not None:
        for file in index_files(shown.search):
            shutil.copyfile(shown.root / file, out / file)
    here = Path()
    # The files of an added chat template are in the bundle: the base model elsewhere does not have them.
    own = {*STORE_FILES, *(CHAT_FILES if (out / RECORD).is_file() else ())}
    serving = ServingSpec(
        name=name,
        trained=trained.model_copy(update={"root": here}),
        prompt=prompt,
        decoding=decoding,
        base=model.model_copy(update={"root": here}),
        search=None if shown is None else shown.search,
        base_files={path.name: sha256_file(path) for path in _files(model.root) if path.name not in own},
        certificate=None if certificate is None or labels is None else ServedCertificate.of(certificate, labels),
    )
    write_json(out / "serving.json", serving.model_dump(mode="json"))
    return BundleRef(root=out, n_bytes=sum(path.stat().st_size for path in out.iterdir()))


def check_evaluated(bundle: BundleRef, trained: TrainedRef) -> None:
    """Check by sha256 that the files to be registered are those that answered the held-out items.

    Raises:
        StorageError: TG0549, a file of the candidate is missing from the bundle or differs there; TG0510, bundle or
            candidate do not match their own manifests.
    """
    for artifact in (trained, bundle):
        check_digest(artifact)
    evaluated, registered = _digests(trained.root), _digests(bundle.root)
    for name, digest in evaluated.items():
        if name not in NOT_SERVED and registered.get(name) != digest:
            raise _not_evaluated(name, bundle.root)


def check_digest(artifact: Artifact) -> None:
    """Read the folder and check that it has the artifact's digest.

    Raises:
        StorageError: TG0549, it is another whole folder; TG0510, it does not match its own manifest.
    """
    if verify(artifact.root) != artifact.digest:
        raise _not_evaluated("the folder", artifact.root)


def _digests(folder: Path) -> dict[str, str]:
    entries = orjson.loads((folder / MANIFEST).read_bytes())["files"]
    return {name: entry["sha256"] for name, entry in entries.items()}


def _not_evaluated(what: str, where: Path) -> StorageError:
    return StorageError(
        f"{what} differs from what was evaluated",
        code="TG0549",
        where=str(where),
        hint="remove this folder and run the pipeline again: it is recreated from what was evaluated",
    )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())
