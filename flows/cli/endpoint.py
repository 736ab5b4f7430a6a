"""`tunegate model endpoint`: serves a pipeline's champion over an OpenAI-compatible API, under the aliases of the
ledger; or those of several pipelines on one base in memory, each for its own token."""

import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from flows.cli.answering import no_champion
from flows.cli.command import command
from flows.cli.listening import listen, run_server
from flows.cli.options import CONFIG, Config, Json, Pipelines
from flows.cli.output import Result, render, talk, warn
from flows.ledger.history import entries_of
from flows.ledger.ledger import Ledger
from flows.ledger.open import open_ledger
from flows.registry.feedback import take_in
from flows.views.metrics import exposition
from flows.views.resolve_candidate import VERIFIED, aliases_of
from flows.workspace.disk import keep_private, private_folder
from flows.workspace.settings import Settings, load_settings
from schemas.counted import counted
from schemas.curation_steps import RedactStep
from schemas.errors import ConfigError
from schemas.load import load_file
from schemas.pipeline import PipelineSpec
from schemas.remote_source import LOOPBACK
from schemas.secrets import know_secret
from tasks.curate.redact import redact_row
from tasks.release.endpoint import LOOPBACK as LOOPBACK_NAMES
from tasks.release.endpoint import Access, Limits, Tenant, build_endpoint
from tasks.release.live import LiveModels, Memory, Offer, base_of
from tasks.tickets.prompts import Message, dump_messages

TOKEN = "TUNEGATE_ENDPOINT_TOKEN"  # noqa: S105  # the variable's name
MIN_TOKEN_CHARS = 16


@dataclass(frozen=True)
class Token:
    """What a request must bring as `Authorization: Bearer`; nothing where there is no value."""

    value: str | None = None
    kept: Path | None = None
    """Where it was made and is kept; None for one of the environment."""
    is_new: bool = False


@command(example="tunegate model endpoint support-replies --port 8399", computes=True)
def endpoint(
    pipelines: Pipelines,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond loopback TUNEGATE_ENDPOINT_TOKEN must be set.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8399,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most new tokens of one answer.")] = 1024,
    rate: Annotated[int, typer.Option(min=1, help="Most requests of one token per second.")] = 100,
    candidates: Annotated[bool, typer.Option("--candidates", help="Also versions never promoted.")] = False,
    no_token: Annotated[bool, typer.Option("--no-token", help="Answer any caller; on loopback only.")] = False,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Serve the champion over an OpenAI-compatible API.

    Its predecessor and named versions, too, until interrupted. Callers need a token, unless --no-token. Several
    pipelines share one base in memory; each has the token TUNEGATE_ENDPOINT_TOKEN_NAME.
    """
    registry, settings = load_file(config), load_settings(config)
    specs = [registry.get(name) for name in dict.fromkeys(pipelines)]
    if len(specs) > 1:
        tokens = tenant_tokens([spec.name for spec in specs], os.environ, no_token=no_token)
        tenants = make_tenants(specs, tokens, settings, candidates=candidates)
        names = {spec.name: sorted(tenant.models.offers()) for spec, tenant in zip(specs, tenants, strict=True)}
        operator = os.environ.get(TOKEN) or None
        announced = partial(_several, names)
    else:
        ledger, name = open_ledger(settings), specs[0].registry.name
        _check_place(host, no_token=no_token)
        models = LiveModels(lambda: offers(ledger, name, candidates=candidates))
        if models.find("champion") is None:
            raise no_champion(specs[0])
        token = Token() if no_token else _token(settings.home)
        tenants, operator = [_tenant(specs[0], models, token.value, settings)], None
        announced = partial(_single, sorted(models.offers()), token)
    app = build_endpoint(
        tenants,
        limits=Limits(max_tokens=max_tokens, max_per_s=rate),
        access=Access(operator, LOOPBACK_NAMES if host in LOOPBACK else ("*",)),
        extra_metrics=lambda: exposition(settings),
    )
    with listen(host, port) as listener:
        host, port = listener.getsockname()[:2]
        render(announced(f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"), as_json=as_json)
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        for logger in ("tunegate", "uvicorn.error"):
            logging.getLogger(logger).addHandler(handler)
        logging.getLogger("tunegate").setLevel(logging.INFO)
        run_server(app, listener)
    return 0


def _tenant(spec: PipelineSpec, models: LiveModels, token: str | None, settings: Settings) -> Tenant:
    return Tenant(models, redact_turns(spec), token, partial(_take_feedback, spec, settings))


def make_tenants(
    specs: Sequence[PipelineSpec], tokens: Mapping[str, str], settings: Settings, *, candidates: bool = False
) -> list[Tenant]:
    """Load every champion on one base; each pipeline's token reaches its own versions, also by the pipeline's name.

    Raises:
        ConfigError: TG0159, a pipeline has no champion; TG0111, its champion does not share the first one's base.
        StorageError: a champion's files are damaged.
    """
    ledger = open_ledger(settings)

    def offered(spec: PipelineSpec) -> dict[str, Offer]:
        found = offers(ledger, spec.registry.name, candidates=candidates)
        return {**({spec.name: found["champion"]} if "champion" in found else {}), **found}

    memory: Memory | None = None
    tenants = []
    for spec in specs:
        champion = offered(spec).get("champion")
        if champion is None:
            raise no_champion(spec)
        memory = memory or Memory(keep=max(4, 2 * len(specs)), only_base=base_of(champion))
        models = LiveModels(partial(offered, spec), memory)
        models.find("champion")
        tenants.append(_tenant(spec, models, tokens[spec.name], settings))
    return tenants


def _take_feedback(spec: PipelineSpec, settings: Settings, lines: list[bytes]) -> dict[str, Any]:
    return take_in(lines, source="endpoint", spec=spec, settings=settings).to_json()


def tenant_variable(pipeline: str) -> str:
    """The variable with a pipeline's token.

    >>> tenant_variable("support-replies")
    'TUNEGATE_ENDPOINT_TOKEN_SUPPORT_REPLIES'
    """
    return f"{TOKEN}_{pipeline.upper().replace('-', '_')}"


def tenant_tokens(pipelines: Sequence[str], environ: Mapping[str, str], *, no_token: bool) -> dict[str, str]:
    """Pipeline -> its token, from the environment alone.

    Raises:
        ConfigError: TG0193, a token is missing, too short, or not of one pipeline only; TG0139, `no_token`.
    """
    if no_token:
        raise ConfigError(
            "several pipelines are distinguished by their tokens, so --no-token is not possible", code="TG0139",
            where="--no-token", hint="serve one pipeline, or leave --no-token out",
        )  # fmt: skip
    tokens = {name: environ.get(tenant_variable(name), "") for name in pipelines}
    if missing := [tenant_variable(name) for name, token in tokens.items() if not token]:
        raise ConfigError(
            f"each of several pipelines needs a token of its own; not set: {', '.join(missing)}", code="TG0193",
            where="environment", hint=f'export {missing[0]}="$(openssl rand -hex 32)"',
        )  # fmt: skip
    for name, token in tokens.items():
        _check_length(token, tenant_variable(name))
        know_secret(token, shown=f"(the token of {name})")
    operator = environ.get(TOKEN) or None
    if operator is not None:
        _check_length(operator, TOKEN)
        know_secret(operator, shown="(the operator's token)")
    if len({*tokens.values(), operator}) < len(tokens) + 1:
        raise ConfigError(
            "two of the tokens are equal, so a caller would reach another pipeline's model", code="TG0193",
            where=", ".join([TOKEN, *map(tenant_variable, pipelines)]),
            hint=f'export {tenant_variable(pipelines[0])}="$(openssl rand -hex 32)"',
        )  # fmt: skip
    return tokens


def offers(ledger: Ledger, name: str, *, candidates: bool) -> dict[str, Offer]:
    """The versions that requests can use now, by alias and by number; with `candidates` also those never promoted."""
    entered = entries_of(ledger.history(name), name)
    known = {
        row.ref.version: Offer(row.ref.version, row.verdict, row.ref.model, row.ref.bundle)
        for row in ledger.candidates(name)
        if row.verdict in VERIFIED
    }
    allowed = {version: offer for version, offer in known.items() if candidates or version in entered}
    aliases = {alias: allowed[v] for alias, v in aliases_of(ledger, name).items() if v in allowed}
    return {**aliases, **{f"version-{version}": offer for version, offer in allowed.items()}}


def redact_turns(spec: PipelineSpec) -> Callable[[list[Message]], list[Message]]:
    """Redact a conversation by the pipeline's `redact` steps, as the tickets that the model learned from were."""
    steps = [step for step in spec.curate.steps if isinstance(step, RedactStep)]

    def redact(turns: list[Message]) -> list[Message]:
        row: Mapping[str, str | None] = {"messages": dump_messages(turns)}
        for step in steps:
            row, _ = redact_row(row, step)
        redacted: list[Message] = orjson.loads(row["messages"] or "[]")
        return redacted

    return redact


def token_file(home: Path) -> Path:
    """Where the token is kept that was made at the endpoint's first start."""
    return home / "endpoint" / "token"


def _token(home: Path) -> Token:
    """The one of the environment, else the one of this home folder, which the first start makes."""
    given = os.environ.get(TOKEN)
    if given:
        _check_length(given, TOKEN)
        return Token(given)
    path, fresh = token_file(home), secrets.token_urlsafe(32)
    private_folder(path.parent)
    keep_private(path, fresh)
    kept = path.read_text().strip()
    _check_length(kept, str(path))
    know_secret(kept, shown=f"(the token in {path})")
    return Token(kept, path, is_new=kept == fresh)


def _check_length(token: str, where: str) -> None:
    if len(token) < MIN_TOKEN_CHARS:
        raise ConfigError(
            f"the token has {len(token)} characters; allowed are {MIN_TOKEN_CHARS} or more",
            code="TG0193",
            where=where,
            hint=f'export {TOKEN}="$(openssl rand -hex 32)"',
        )


def _check_place(host: str, *, no_token: bool) -> None:
    """Beyond loopback the operator chooses the token: one that is made here would stand in the log of a container."""
    if host in LOOPBACK or (os.environ.get(TOKEN) and not no_token):
        return
    why = "nothing would be asked of who calls" if no_token else f"{TOKEN} is not set"
    raise ConfigError(
        f"{host} can be reached from other machines, and {why}; allowed so: {', '.join(LOOPBACK)}",
        code="TG0193",
        where="--host",
        hint=f'export {TOKEN}="$(openssl rand -hex 32)", and put a proxy with TLS before it',
    )


def _several(names: Mapping[str, list[str]], url: str) -> Result:
    def text() -> Iterator[Any]:
        talk().print(f"{url}   one base model for {counted(len(names), 'pipeline')}   (Ctrl-C ends it)", markup=False)
        for name, each in names.items():
            talk().print(f"  {name}: {', '.join(each)}   (token: {tenant_variable(name)})", markup=False)
        yield from ()

    tenants = {name: {"models": each, "token_env": tenant_variable(name)} for name, each in names.items()}
    return Result({"url": url, "models": list(names), "tenants": tenants, "token_file": None}, text())


def _single(names: list[str], token: Token, url: str) -> Result:
    if token.is_new:
        talk().print(f"token: {token.value}   (kept in {token.kept}, not shown again)", markup=False, soft_wrap=True)

    def text() -> Iterator[Any]:
        talk().print(f"{url}   models: {', '.join(names)}   (Ctrl-C ends it)", markup=False)
        if token.value is None:
            warn("it answers whoever calls from this machine")
        yield from ()

    return Result({"url": url, "models": names, "token_file": token.kept}, text())
