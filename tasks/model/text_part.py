"""Of a model that also sees images or hears sound, the part that reads and writes text, as a model of its own.

Its settings are `text_config` in config.json, its weights those under `language_model`. What is trained, answered with
and exported is that part alone: the whole would need images' inputs in each step, and its other parts carry no loss.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from schemas.errors import ConfigError, StorageError
from tasks.storage.files import write_json

_NESTED = re.compile(r"^(?:model\.language_model\.|language_model\.model\.)")
_NESTED_HEAD = re.compile(r"^language_model\.lm_head\.")
TEXT_PART = "text_part.json"
"""In the folder of a kept text part: at its address is the whole model, whose weights have other names."""
_SHARED = (
    "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings", "dtype", "torch_dtype",
    "quantization_config",
)  # fmt: skip
"""Settings of the whole that are also the text part's."""


def has_text_part(config: Mapping[str, Any]) -> bool:
    """Whether the settings of the text part are nested in those of a larger model."""
    return isinstance(config.get("text_config"), dict)


def text_fields(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of the text part; those of a model for text alone unchanged.

    >>> text_fields({"model_type": "gemma3", "eos_token_id": 1, "text_config": {"model_type": "gemma3_text"}})
    {'eos_token_id': 1, 'model_type': 'gemma3_text'}
    """
    if not has_text_part(config):
        return config
    return {**{name: config[name] for name in _SHARED if name in config}, **config["text_config"]}


def text_name(name: str) -> str | None:
    """A weight's name in the text part; None for a weight of another part.

    >>> text_name("language_model.model.norm.weight"), text_name("model.language_model.norm.weight")
    ('model.norm.weight', 'model.norm.weight')
    >>> text_name("lm_head.weight"), text_name("vision_tower.vision_model.head.weight")
    ('lm_head.weight', None)
    """
    if _NESTED.match(name):
        return _NESTED.sub("model.", name)
    head = _NESTED_HEAD.sub("lm_head.", name)
    return head if head.startswith("lm_head.") else None


def text_names(names: Iterable[str]) -> set[str]:
    """The names of the text part's weights, of those of the whole."""
    return {own for name in names if (own := text_name(name)) is not None}


def keep_text_part(folder: Path) -> None:
    """Replace the config.json and weights in `folder` with those of the text part; other files stay.

    The files may be links into a cache: they are written anew and never changed in place.

    Raises:
        ConfigError: TG0173, as `build_skeleton`, or no weight is one of a text part.
        StorageError: TG0542, the weights are damaged.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    from tasks.model.skeleton import build_skeleton

    place = folder / "config.json"
    whole = orjson.loads(place.read_bytes())
    part = build_skeleton(text_fields(whole))
    index: dict[str, str] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                names = {own: name for name in file.keys() if (own := text_name(name)) is not None}  # noqa: SIM118
                tensors = {own: file.get_tensor(name) for own, name in names.items()}
                if tensors:
                    save_file(tensors, folder / f"text-{path.name}", {"format": "pt"})
        except (OSError, SafetensorError) as error:
            raise StorageError(f"damaged weights: {error}", code="TG0542", where=str(path)) from None
        path.unlink()
        if names:
            (folder / f"text-{path.name}").rename(path)
            index |= dict.fromkeys(names, path.name)
    if not index:
        raise ConfigError(
            f"the weights of this {whole.get('model_type')} have no part named language_model, which config.json "
            "describes as text_config", code="TG0173", where="train.base_model",
            hint="use the model's own files, or a model for text alone",
        )  # fmt: skip
    listed = folder / "model.safetensors.index.json"
    if listed.exists():
        write_json(listed, {"metadata": {}, "weight_map": index})
    fields = orjson.loads(part.config.to_json_string(use_diff=False))
    if "lm_head.weight" not in index:  # the whole may be what says that its head is the embeddings
        fields["tie_word_embeddings"] = True
    write_json(place, fields | {"architectures": [type(part).__name__]})
    write_json(folder / TEXT_PART, {"of": whole.get("model_type")})
