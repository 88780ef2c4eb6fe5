"""Commands that run the engine on a server: up, down, submit."""

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from flows.commands.app import (
    Json,
    LocalPath,
    Place,
    Whole,
    app,
    console,
    print_json,
    say,
    show_examples,
)
from storage.errors import InputError
from storage.exit_codes import EXIT_WORK_LEFT

_State = Annotated[LocalPath | None, Parameter(show_default=False)]
_Port = Annotated[Whole, Parameter(validator=Number(gte=1, lt=65536))]
_Workers = Annotated[Whole | None, Parameter(validator=Number(gte=0, lte=64), show_default=False)]
_Samples = Annotated[Whole | None, Parameter(validator=Number(gte=1))]
_Switch = Parameter(negative="", show_default=False)


@app.command(
    help_epilogue=show_examples(
        "magicseg up",
        "magicseg up --check",
        "magicseg up --data s3://bucket/magicseg --port 4210",
        "magicseg up --server http://head:4200/api --data s3://bucket/magicseg",
    )
)
def up(
    *,
    data: Place = "runs",
    host: str = "127.0.0.1",
    port: _Port = 4200,
    server: str | None = None,
    workers: _Workers = None,
    state: _State = None,
    check: Annotated[bool, _Switch] = False,
    json_: Json = False,
) -> None:
    """Run server, workers and deployments on this machine until Ctrl-C or 'magicseg down'.

    Doing it again changes nothing; what was switched on or off in the user interface stays so.

    Args:
        data: Folder or object-store URL; datasets are made in it.
        host: Interface that the server listens on.
        port: Its port.
        server: API of a server on another machine: then only workers are run here.
        workers: Workers; by default one a GPU, or one if there is none.
        state: Folder for database and logs; by default magicseg in the user's state folder.
        check: Say what is missing, and start nothing.
        json_: With --check, print JSON.
    """
    from flows.doctor import print_findings
    from flows.operating.checks import examine_site
    from flows.operating.site import Site, state_folder
    from flows.operating.up import run_site

    if json_ and not check:
        message = "--json goes with --check alone"
        raise InputError(message)
    folder = (state or state_folder()).absolute()
    site = Site(folder, data, host, port, _address(server), workers)
    if not check:
        try:
            run_site(site, console)
        except KeyboardInterrupt:
            say("stopped; what was finished is kept")
        return
    findings = examine_site(site)
    if json_:
        print_json([finding.model_dump(mode="json") for finding in findings])
    else:
        print_findings(findings, console)
    if not all(finding.ok for finding in findings):
        sys.exit(EXIT_WORK_LEFT)


@app.command(help_epilogue=show_examples("magicseg down"))
def down(*, state: _State = None) -> None:
    """Stop what 'magicseg up' runs on this machine; runs commit what they have finished.

    Args:
        state: The folder that 'magicseg up' was given.
    """
    from flows.operating.site import state_folder
    from flows.operating.up import stop_site

    stop_site((state or state_folder()).absolute(), console)


@app.command(
    help_epilogue=show_examples(
        "magicseg submit voc20 lvis-r",
        "magicseg submit cat --deployment generate-slices/miniature-slices",
    )
)
def submit(
    *slices: str,
    deployment: str = "generate-slices/paper-slices",
    samples: _Samples = None,
    queue: str | None = None,
    follow: Annotated[bool, Parameter(negative="--no-follow")] = True,
    state: _State = None,
) -> None:
    """Send slices to the workers, one run each, and follow them to their end.

    Args:
        slices: Named slices (voc20, lvis-r, ...), ranges of ids (0:100), or names between commas.
        deployment: Deployment of generate-slices that says how they are made.
        samples: Samples to plan for each slice; by default what is deployed.
        queue: Work queue, such as that of a class of GPUs; by default the deployment's.
        follow: Wait until all are over.
        state: The folder that 'magicseg up' was given, if PREFECT_API_URL is not set.
    """
    url = _reach(state)
    from flows.operating.connection import connected
    from flows.operating.submission import follow as follow_run
    from flows.operating.submission import submit as submit_slices

    with connected(url) as client:
        run = submit_slices(client, slices, deployment, samples, queue)
        say(f"{run.name}: {url.rstrip('/').removesuffix('/api')}/runs/flow-run/{run.id}")
        if follow:
            follow_run(client, run, console)


def _address(server: str | None) -> str:
    if server is None:
        return ""
    from flows.embedded_server import check_server

    return check_server(server, "--server")


def _reach(state: Path | None) -> str:
    """The address of the API that is meant, where a server answers.

    Raises:
        InputError: None is.
    """
    from flows.embedded_server import check_server
    from flows.operating.site import running_site, state_folder

    url = os.environ.get("PREFECT_API_URL")
    if not url:
        folder = (state or state_folder()).absolute()
        record = running_site(folder)
        if record is None:
            message = (
                f"no server is known: nothing runs in {folder} and PREFECT_API_URL is not set; "
                "'magicseg up' starts one"
            )
            raise InputError(message)
        url = str(record["url"])
    return check_server(url)
