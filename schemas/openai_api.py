"""The part of OpenAI's API that `tunegate model endpoint` accepts: requests for chat and plain completions.

Only greedy answers were judged, so settings for other answers are refused; settings without effect (`seed`, `user`) are
accepted.

Source: OpenAI's API reference, `/v1/chat/completions` and `/v1/completions`.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.spec import Frozen

MAX_STOPS, MAX_TOP = 4, 20
Zero = Annotated[float, Field(ge=0, le=0)]
Stop = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=MAX_STOPS)]


class TextPart(Frozen):
    """A part of a message; text is the only kind."""

    type: Literal["text"]
    text: str


class ChatMessage(Frozen):
    """A turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(Frozen):
    """`stream_options`."""

    include_usage: bool = False
    include_obfuscation: bool = False


class CompletionRequest(Frozen):
    """Fields of both kinds of requests."""

    model: str
    max_tokens: int | None = Field(default=None, ge=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: str | Stop | None = None
    temperature: Zero | None = None
    """Answers are greedy, as they were judged."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Without effect: the most likely token is in every nucleus."""
    n: Literal[1] | None = None
    frequency_penalty: Zero | None = None
    presence_penalty: Zero | None = None
    logit_bias: None = None
    seed: int | None = None
    user: str | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts before which the answer ends."""
        if isinstance(self.stop, str):
            return (self.stop,) if self.stop else ()
        return tuple(self.stop or ())

    @property
    def limit(self) -> int | None:
        """Requested maximum of new tokens; None is the endpoint's default."""
        return self.max_tokens

    @property
    def n_top(self) -> int | None:
        """How many of the most likely tokens to report at each place; None reports no likelihoods at all."""
        return None

    @property
    def wants_usage(self) -> bool:
        """Whether to send a final chunk with the token counts."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(CompletionRequest):
    """`/v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP)
    store: Literal[False] | None = None

    @property
    def limit(self) -> int | None:
        """The same, by either name."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def n_top(self) -> int | None:
        """The same."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @model_validator(mode="after")
    def _top_needs_logprobs(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("`top_logprobs` needs `logprobs: true`")
        return self

    @model_validator(mode="after")
    def _turns_alternate(self) -> Self:
        roles = [message.role for message in self.messages]
        spoken = roles[1:] if roles[0] in ("system", "developer") else roles
        if len(spoken) % 2 == 0 or any(role != ("user", "assistant")[at % 2] for at, role in enumerate(spoken)):
            raise ValueError("expected an optional system turn, then user and assistant in turn, ending with the user")
        if not all(message.text.strip() for message in self.messages):
            raise ValueError("a message has no text")
        return self

    def turns(self) -> list[dict[str, str]]:
        """The messages in the chat format."""
        named = {"developer": "system"}
        return [{"role": named.get(each.role, each.role), "content": each.text} for each in self.messages]


class TextRequest(CompletionRequest):
    """`/v1/completions`."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: None = None
    logprobs: None = None

    @property
    def text(self) -> str:
        """The prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]
