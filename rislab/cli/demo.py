"""`rislab demo`: a page on which one or two methods answer a picture."""

import argparse
import socket
from pathlib import Path

from rislab.cli.tables_option import add_tables_option
from rislab.errors import ConfigError
from rislab.paths import user_path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "demo",
        help="a page in the browser: a picture, sentences or class names, one or two methods side by side",
        description="Serve a page on this machine on which one or two methods answer the same picture (extra `demo`, gradio). It "
        "needs no network. CHECKPOINT is whatever `rislab segment --checkpoint` takes: a trial, its best.ckpt, a row of a table.",
        epilog="example: rislab demo cris:base cris:con+dec3 --port 7860",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="trial, best.ckpt, or row of a table (cris:con+dec3)")
    parser.add_argument("other", nargs="?", metavar="CHECKPOINT2", help="a second method, shown beside the first")
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen at (default: this machine's own)"
    )
    parser.add_argument(
        "--port", type=int, metavar="N", help="port to listen at (default: the first free one from 7860)"
    )
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="cpu, cuda, cuda:1 (default: a GPU if there is one)"
    )
    parser.add_argument(
        "--runs", type=user_path, default=Path("runs"), metavar="DIR", help="trials (default: %(default)s)"
    )
    add_tables_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import rislab
    from rislab.api.demo import page, require
    from rislab.training.cli import quiet

    require()  # before models are loaded

    _check_address(options.host, options.port)
    names = [name for name in (options.checkpoint, options.other) if name is not None]
    if len(set(names)) < len(names):
        raise ConfigError(f"{names[0]} is given twice; expected two different methods")
    quiet()
    models = {
        name: rislab.load(name, runs=options.runs, tables=options.tables, device=options.device) for name in names
    }
    served = page(models)
    try:
        _, address, _ = served.launch(
            server_name=options.host, server_port=options.port, share=False, quiet=True, prevent_thread_lock=True
        )
    except OSError as error:  # no free port, or an address of another machine
        raise ConfigError(f"--host {options.host} --port {options.port}: {error}") from error
    print(f"{address} (Ctrl-C ends it)", flush=True)
    served.block_thread()
    return 0


def _check_address(host: str, port: int | None) -> None:
    """Raises ConfigError for an address that nothing can listen at here; gradio would try it a hundred times."""
    if port is not None and not 1 <= port <= 65535:
        raise ConfigError(f"--port {port}: expected 1 to 65535")
    where = f"--host {host}" if port is None else f"--host {host} --port {port}"
    try:
        found = socket.getaddrinfo(host or None, port or 0, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host
        raise ConfigError(f"{where}: {getattr(error, 'strerror', None) or error}") from None
