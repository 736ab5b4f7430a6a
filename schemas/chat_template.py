"""Chat templates for base models that have none (common families by name, or a file), and switches of templates.

tasks/model/chat_base.py adds a template to a base model.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, TypeAdapter
from ruamel.yaml import YAML

from schemas.errors import ConfigError
from schemas.spec import Spec

SUFFIX = ".jinja"
WHERE = "train.prompt.chat_template"
TemplateOption = StrictBool | StrictInt | StrictFloat | StrictStr
_FOLDER = Path(__file__).with_name("chat_templates")
_MAX_BYTES = 100_000


class ChatTemplate(Spec):
    """A template and the control tokens that it needs."""

    name: str
    """The family, or the path as declared; empty for the base's own."""
    text: str | None
    """Jinja, with `messages`, `add_generation_prompt`, `bos_token` and `eos_token`; None for the base's own."""
    options: dict[str, TemplateOption] = Field(default_factory=dict)
    """Variables that it gets besides these."""
    tokens: tuple[str, ...] = ()
    """Control tokens; those that the tokenizer lacks are added."""
    trained: tuple[str, ...] = ()
    """Tokens whose rows are trained even if the tokenizer has them: of reserved tokens they are often untrained."""

    def written(self, own: str) -> str:
        """The text that fills itself with the options, so that every reader of the file gets them.

        Args:
            own: The base's template.

        >>> ChatTemplate(name="", text=None, options={"think": False}).written("{{ think }}")
        '{% set think = false %}{{ think }}'
        """
        set_ = "".join(f"{{% set {name} = {json.dumps(value)} %}}" for name, value in self.options.items())
        return set_ + (own if self.text is None else self.text)


@cache
def families() -> dict[str, tuple[str, ...]]:
    """Family -> its control tokens.

    >>> families()["chatml"]
    ('<|im_start|>', '<|im_end|>')
    """
    read = YAML(typ="safe", pure=True).load(_FOLDER / "families.yaml")
    return TypeAdapter(dict[str, tuple[str, ...]]).validate_python(read)


def resolve_template(
    declared: str | None,
    added_tokens: tuple[str, ...],
    *,
    options: Mapping[str, TemplateOption],
    root: Path,
) -> ChatTemplate | None:
    """The template of a family or of a file, or the base's own with options; None for the base's own as it is.

    Args:
        declared: `train.prompt.chat_template`.
        added_tokens: `train.prompt.added_tokens`.
        options: `train.prompt.template_options`.
        root: Folder where relative paths start.

    Raises:
        ConfigError: TG0173, the file cannot be read, or is not a Jinja template.
    """
    if declared is None:
        return ChatTemplate(name="", text=None, options=dict(options)) if options else None
    if declared in families():
        text = (_FOLDER / f"{declared}{SUFFIX}").read_text(encoding="utf-8")
        tokens = tuple(dict.fromkeys((*families()[declared], *added_tokens)))
    else:
        text, tokens = _read(root / Path(declared).expanduser()), added_tokens
    return ChatTemplate(name=declared, text=text, options=dict(options), tokens=tokens, trained=added_tokens)


def _read(path: Path) -> str:
    from jinja2 import Environment, TemplateSyntaxError
    from jinja2.ext import Extension

    class AnswerTag(Extension):
        """The tag that marks an answer for other trainers; transformers knows it, Jinja does not."""

        tags = {"generation"}  # noqa: RUF012  Jinja reads it from the class

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    hint = "relative paths start at the folder of pipelines.yaml"
    try:
        with path.open("rb") as stream:
            text = stream.read(_MAX_BYTES + 1).decode()
        if len(text) > _MAX_BYTES:
            raise ConfigError(f"the file is larger than {_MAX_BYTES:,} bytes", code="TG0173", where=str(path))
        Environment(autoescape=True, extensions=[AnswerTag, "jinja2.ext.loopcontrols"]).parse(text)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", code="TG0173", where=WHERE, hint=hint) from None
    except UnicodeDecodeError:
        raise ConfigError("the file is not UTF-8", code="TG0173", where=str(path)) from None
    except TemplateSyntaxError as error:
        raise ConfigError(
            f"not a Jinja template: {error.message}", code="TG0173", where=f"{path}:{error.lineno}"
        ) from None
    if not text.strip():
        raise ConfigError("the file is empty", code="TG0173", where=str(path))
    return text
