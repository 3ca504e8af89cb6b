"""`identity-pipeline serve`: the web server, with what it needs running."""

from contextlib import nullcontext, suppress

import click

from identity_pipeline.cli import output, services


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen. Behind a proxy set IDENTITY_PUBLIC_URL too.")
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65_535))
@click.option("--no-daemon", is_flag=True, help="Bring no daemon for loads and schedules: another one runs.")
def serve(host: str, port: int, *, no_daemon: bool) -> None:
    """Serve the Sources page, the Sources API and Dagster's own UI on one port, behind one login.

    It prints a link that signs you in once. IDENTITY_AUTH says how people sign in: token (default), oidc (your
    OpenID provider, by IDENTITY_OIDC_*) or none (this machine alone). Starts the embedded database if no other is set.
    """
    services.check_port(host, port)
    services.end_on_sigterm()
    services.database(output.say)
    services.project()
    import dagster as dg  # noqa: PLC0415 - a second

    from identity_pipeline.dagster_internals import DagsterExecutionInterruptedError  # noqa: PLC0415
    from identity_pipeline.web import server  # noqa: PLC0415

    daemon = nullcontext() if no_daemon else services.daemon(output.say)
    # an interrupt that comes while the code location loads is told in Dagster's own way
    with suppress(KeyboardInterrupt, DagsterExecutionInterruptedError), dg.DagsterInstance.get() as instance, daemon:
        server.serve(instance, host, port, output.say)
