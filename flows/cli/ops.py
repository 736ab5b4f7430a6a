"""`tunegate ops`: servers, scheduled runs, health and maintenance."""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.cli.command import command, group
from flows.cli.options import CONFIG, Config, Json, Pipeline
from flows.cli.output import out, print_json, print_rows, talk, warn
from flows.workspace.settings import load_settings
from schemas.counted import counted

app = group("Servers, scheduled runs, health and maintenance.")


@command(app, example="tunegate ops up")
def up(config: Config = CONFIG, as_json: Json = False) -> int:
    """Start the Prefect and MLflow servers, on loopback only.

    Prefect shows the runs of all your projects and ends after an hour without use. What runs already is left alone, as
    is an external Prefect (PREFECT_API_URL). The printed address of Prefect's pages logs a browser in; JSON, which
    programs keep, has the plain one. MLflow's pages ask for a user and a password: the printed file has them.
    """
    from flows.workspace.disk import private_folder
    from flows.workspace.login import login_file, login_url
    from flows.workspace.servers import ensure_mlflow, ensure_users_prefect

    settings = load_settings(config)
    private_folder(settings.home)  # where it cannot be, no server is started
    started = (ensure_users_prefect(settings), ensure_mlflow(settings.home))
    servers = [server for server in started if server is not None]
    if as_json:
        print_json({"servers": [asdict(server) for server in servers]})
        return 0
    for server in servers:
        folder = Path(server.log).parent
        where = login_url(server.url, folder) if server.kind == "prefect" else server.url
        where += f"   user:password in {login_file(folder)}" if server.kind == "mlflow" else ""
        out().print(f"{server.kind:<8} {where}   log: {server.log}", markup=False, soft_wrap=True)
    return 0


@command(app, example="tunegate ops down")
def down(
    config: Config = CONFIG,
    everything: Annotated[
        bool, typer.Option("--all", help="Also your Prefect server, which all your projects use.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Stop this project's servers.

    Your Prefect server, which other projects may be using, is left to its end after an hour without use.
    """
    from flows.workspace.servers import running, stop_all, users_homes

    settings = load_settings(config)
    common = users_homes(settings.state)
    stopped = [server for home in (settings.home, *(common if everything else ())) for server in stop_all(home)]
    left = running(*common)
    if as_json:
        print_json({"stopped": [asdict(server) for server in stopped], "left": [asdict(server) for server in left]})
        return 0
    out().print(f"stopped: {', '.join(server.kind for server in stopped) or 'nothing was running'}")
    for server in left:
        out().print(
            f"left running: your Prefect server {server.url}, for all your projects; it ends after "
            f"{settings.server_idle_s / 60:g} minutes without use, or by `tunegate ops down --all`",
            markup=False, soft_wrap=True,
        )  # fmt: skip
    return 0


@command(app, example="tunegate ops serve")
def serve(config: Config = CONFIG, as_json: Json = False) -> int:
    """Run pipelines by their `schedule`: at its times and on its events.

    Each is a Prefect deployment of this process, until interrupted. With --json, one object says what is served before
    the first tick.
    """
    from flows.schedule.automatic import automatic_pipelines
    from flows.workspace.servers import client_environment, ensure_prefect
    from schemas.load import load_file

    loaded = load_file(config)
    served: dict[str, list[str]] = {}
    for name, spec in automatic_pipelines(loaded).items():
        served[name] = [f"{spec.schedule.cron} ({spec.schedule.timezone})"] if spec.schedule.cron else []
        served[name] += [f"event {trigger.event}" for trigger in spec.schedule.triggers]
        talk().print(f"{name}: {', '.join(served[name])}", markup=False)
    server = ensure_prefect(load_settings(config).home)
    # Prefect reads its settings when it is first imported: only now.
    os.environ.update(client_environment(server))
    import prefect

    from flows.deployments import deployments, prepare

    prepare()
    if as_json:
        print_json({"serving": served})
        sys.stdout.flush()  # whoever reads it waits for this line
    prefect.serve(*deployments(loaded, config), pause_on_shutdown=False, print_starting_message=False)
    return 0


@command(app, example="tunegate ops tick support-replies")
def tick(
    pipeline: Pipeline,
    cause: Annotated[
        Literal["schedule", "event", "person"], typer.Option(help="What made it; kept in the ledger.")
    ] = "person",
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Decide as the schedule does: run the pipeline, or skip.

    `schedule.retrain` says what a run must be worth; a skip says until when.
    """
    from flows.cli.running import run_and_print
    from flows.context.request import RunRequest
    from flows.run.console import print_verdict
    from flows.schedule.ticks import skip_without_lock, tick_wait_s
    from schemas.load import load_file

    spec = load_file(config).get(pipeline)
    request = RunRequest(tick=cause, wait_s=tick_wait_s(spec))
    skipped = skip_without_lock(spec, load_settings(config), request)
    if skipped is None:
        return run_and_print(pipeline, config, request, as_json=as_json)
    print_verdict(talk(), "SKIP", skipped.reason, details=[f"tunegate model history {pipeline}"])
    if as_json:
        print_json({**skipped.model_dump(), "exit_code": 0, "mlflow_pending": 0})
    return 0


@command(app, example="tunegate ops deploy --pool gpus")
def deploy(
    pool: Annotated[
        str | None, typer.Option(help="Work pool whose workers run them; `tunegate ops serve` if not given.")
    ] = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Bring Prefect's deployments in line with pipelines.yaml.

    Automations, too; what is not declared any more is removed. May be repeated.
    """
    from flows.schedule.automatic import automatic_pipelines
    from flows.workspace.login import login_file
    from flows.workspace.servers import client_environment, ensure_prefect
    from schemas.load import load_file

    loaded = load_file(config)
    automatic_pipelines(loaded)  # refuses a file without schedules before any server is started
    home = load_settings(config).home
    server = ensure_prefect(home)
    os.environ.update(client_environment(server))
    from flows.deployments import register  # Prefect reads its settings when it is first imported: only now

    done, removed = register(loaded, config, pool=pool)
    rows = [{**asdict(each), "events": ", ".join(each.events)} for each in done]
    if as_json:
        print_json({"deployments": [asdict(each) for each in done], "removed": removed, "pool": pool})
        return 0
    print_rows(rows, ("pipeline", "stage", "pool", "schedule", "events", "deployment_id"))
    if removed:
        out().print(f"removed: {', '.join(removed)}", markup=False)
    pools = sorted({each.pool for each in done if each.pool})
    workers = ", ".join(f"`prefect worker start --pool {each}`" for each in pools)
    runners = [f"{workers} runs what has a pool"] if pools else []
    runners += ["`tunegate ops serve` runs the others"] if any(not each.pool for each in done) else []
    sentence = "; ".join(runners)
    if pools and server is not None:
        login = login_file(home / "prefect")
        sentence += f", with PREFECT_API_URL={server.url}/api and what {login} holds as PREFECT_API_AUTH_STRING"
    out().print(sentence, markup=False, soft_wrap=True)
    return 0


@command(app, example="tunegate ops doctor --json")
def doctor(config: Config = CONFIG, as_json: Json = False) -> int:
    """Check the machine, the state folder and the servers.

    Also whether the champion's files are whole. Exit code 1 when a finding is bad.
    """
    from flows.schedule.slots import slots
    from flows.views.doctor import CHECKS, Patient, examine

    patient = Patient(load_settings(config), config, os.environ)
    findings = [finding for check in (*CHECKS, slots) for finding in examine(check, patient)]
    fit = all(finding.state != "bad" for finding in findings)
    if as_json:
        print_json({"fit": fit, "findings": [asdict(finding) for finding in findings]})
    else:
        for each in findings:
            fix = f"   -> {each.fix}" if each.fix else ""
            out().print(f"{each.state:<4} {each.what:<14} {each.message}{fix}", markup=False, soft_wrap=True)
    return 0 if fit else 1


@command(app, example="tunegate ops reconcile")
def reconcile(config: Config = CONFIG, as_json: Json = False) -> int:
    """Bring MLflow up to date with the ledger; may be repeated.

    Aliases that others moved are put back. Exit code 7 when MLflow does not answer.
    """
    from flows.champion.mlflow_sync import reconcile as reconcile_ledger
    from flows.ledger.open import open_ledger

    settings = load_settings(config)
    done = reconcile_ledger(open_ledger(settings), settings)
    if done.late is not None:
        raise done.late
    if as_json:
        print_json({"synced": done.n_synced, "repaired": list(done.repaired)})
        return 0
    out().print(f"MLflow is up to date ({counted(done.n_synced, 'change')} synchronised)")
    for alias in done.repaired:
        warn(f"{alias} was wrong in MLflow: it was moved without the ledger")
    return 0


@command(app, example="tunegate ops migrate --ledger-to copy")
def migrate(
    ledger_to: Annotated[
        str, typer.Option(help="Where to: postgresql://... or a folder; without a ledger so far.", show_default=False)
    ],
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Copy the ledger to another database or folder, with its history.

    The copy has the same rows and hashes. The ledger itself stays: TUNEGATE_LEDGER_URL or TUNEGATE_HOME names the one
    to use.
    """
    from flows.ledger.ledger import Ledger
    from flows.ledger.migrate import copy_ledger, ledger_digest
    from flows.ledger.open import open_ledger

    settings = load_settings(config)
    source = open_ledger(settings)
    target = Ledger(settings.home, ledger_to) if "://" in ledger_to else Ledger(Path(ledger_to))
    n_rows = sum(copy_ledger(source, target).values())
    digest = ledger_digest(target)
    message = f"copied from {source.kept.place}: {n_rows} rows, digest {digest[:16]}"
    if ledger_digest(source) != digest:
        message = "was copied, but one of the two changed meanwhile: copy it again while nothing runs"
    if as_json:
        print_json([{"what": target.kept.place, "message": message}])
    else:
        out().print(f"{target.kept.place}: {message}", markup=False)
    return 0


@command(app, example="tunegate ops metrics > tunegate.prom")
def metrics(config: Config = CONFIG) -> int:
    """Print the ledger's figures as Prometheus metrics.

    Runs, champions, rows, times, and changes that MLflow does not have yet.
    """
    from flows.ledger.open import open_ledger
    from flows.views.metrics import exposition

    settings = load_settings(config)
    sys.stdout.write(exposition(settings).decode())
    with open_ledger(settings).read():  # a ledger that is refused is a metric for the alert, and an exit code
        return 0


@command(app, example="tunegate ops schema > pipelines.schema.json")
def schema(_as_json: Json = False) -> int:
    """Print the JSON Schema of pipelines.yaml, for editors.

    Byte for byte as it is committed; it is JSON with and without --json.
    """
    from schemas.json_schema import json_schema_text

    sys.stdout.write(json_schema_text())
    return 0
