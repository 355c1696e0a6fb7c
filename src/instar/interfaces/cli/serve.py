"""`instar up`: serve everything on one port."""

from __future__ import annotations

import os
from pathlib import Path

import click

PORT = 5000  # where clients of MLflow's protocol look first


@click.command("up")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; beyond loopback it asks for tokens."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0 takes any that is free."
)
@click.option("--grpc-port", type=click.IntRange(0, 65535), help="Answer gRPC, too, on this port; 0 takes any.")
@click.option(
    "--gateways", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that share the port."
)
@click.option(
    "--record",
    type=click.Choice(["durable", "prompt"]),
    default="durable",
    show_default=True,
    help="Answer when a call's record is on the disk, or when the operating system has it.",
)
@click.option(
    "--tls-cert",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Speak TLS with this certificate (PEM, with those that sign it); default INSTAR_TLS_CERT, else plain HTTP.",
)
@click.option(
    "--tls-key", type=click.Path(dir_okay=False, path_type=Path), help="Its key (PEM); default INSTAR_TLS_KEY."
)
@click.option(
    "--call-limit",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="After which a call is given up; default INSTAR_CALL_LIMIT, else 30.",
)
@click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    help="The store's folder; default INSTAR_STORE, else .instar of the project, or here.",
)
@click.pass_obj
def up_command(
    project: str | None,
    host: str,
    port: int,
    grpc_port: int | None,
    gateways: int,
    record: str,
    tls_cert: Path | None,
    tls_key: Path | None,
    call_limit: float | None,
    store: Path | None,
) -> None:
    """Serve console, API, tracking and inference on one port until interrupted; in a folder without a project, too."""
    import logging

    from instar.core.settings import DEFAULT_PROJECT, read_settings
    from instar.plan.project import find_root_if_any, load_project
    from instar.serve.root.supervisor import Root

    start = Path(project) if project is not None else Path.cwd()
    root = find_root_if_any(start, need=project is not None)
    # A contract that cannot be read stops us here, and not the control process later.
    name = load_project(root).name if root is not None else DEFAULT_PROJECT
    folder = (store or read_settings().store_folder(root or start)).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")

    def listening(url: str) -> None:
        beside = f", and gRPC on port {server.grpc_port}" if server.grpc_port is not None else ""
        click.echo(f"Instar serves {name} on {url}{beside} (Ctrl-C drains and ends)")

    if call_limit is not None:
        os.environ["INSTAR_CALL_LIMIT"] = f"{call_limit:g}"  # for all processes of the server
    for setting, file in (("INSTAR_TLS_CERT", tls_cert), ("INSTAR_TLS_KEY", tls_key)):
        if file is not None:
            os.environ[setting] = str(file.absolute())
    server = Root(folder, root, host, port, gateways, grpc_port, record == "durable", listening=listening)
    server.run()
    click.echo("drained: every call that was taken is answered and on the record")


commands = {"up": up_command}
