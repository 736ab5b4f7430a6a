"""Export the registered adapter unchanged: for PEFT, and for vLLM with a script that serves it."""

from __future__ import annotations

import shutil
from pathlib import Path

from tasks.model.chat_base import RECORD
from tasks.release.bundle import STORE_FILES
from tasks.release.export_format import Exported, export_format
from tasks.release.serve import read_serving
from tasks.release.vllm_launch import ADAPTER, TEMPLATE, check_servable, launch_script


@export_format("peft", reads_base=False)
def write_peft(source: Exported, out: Path) -> dict[str, float]:
    """Copy the bundle: it already is in PEFT's format, with the prompt, the decoding and the base's digests."""
    _copy_bundle(source.bundle.root, out)
    return {}


@export_format("vllm")
def write_vllm(source: Exported, out: Path) -> dict[str, float]:
    """Write the adapter, the base's chat template, and `serve.sh`, which serves both by the candidate's names."""
    from tasks.model.base_model import load_tokenizer
    from tasks.model.chat_codec import training_template

    serving = read_serving(source.bundle.root)
    rank = check_servable(serving, source.bundle.root)
    template = training_template(load_tokenizer(source.model)) if serving.trained.format == "instruction" else None
    (out / ADAPTER).mkdir()
    _copy_bundle(source.bundle.root, out / ADAPTER)
    if template is not None:
        (out / TEMPLATE).write_text(template, encoding="utf-8")
    names = [*source.aliases, f"version-{source.version}"]
    script = out / "serve.sh"
    text = launch_script(
        serving, names, max_rank=rank, has_template=template is not None,
        has_tokenizer=(source.bundle.root / RECORD).is_file(),
    )  # fmt: skip
    script.write_text(text, encoding="utf-8")
    script.chmod(0o755)
    return {}


def _copy_bundle(bundle: Path, out: Path) -> None:
    for path in sorted(bundle.iterdir()):
        if path.is_file() and path.name not in STORE_FILES:
            shutil.copyfile(path, out / path.name)
