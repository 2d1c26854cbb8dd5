"""`rislab init DIR [TABLE...]`: copies of tables and their configs, to edit."""

import argparse
from pathlib import Path

from rislab.cli.tables_option import add_tables_option
from rislab.messages import result
from rislab.paths import user_path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "init",
        help="copy tables and their configs into a folder, to edit",
        description="Copy tables with every config that they name into DIR/ablations and DIR/experiments. In DIR, and with "
        "--tables DIR elsewhere, they take the place of those that come with rislab. A trial whose config was not edited keeps "
        "its hash.",
        epilog="example: rislab init study cris lavt",
    )
    parser.add_argument("folder", type=user_path, metavar="DIR", help="new, or with other tables in it")
    parser.add_argument("names", nargs="*", default=["cris"], metavar="TABLE", help="names or files (default: cris)")
    add_tables_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from rislab.ablation import copying, table

    found = [table.load(table.find(name, options.tables)) for name in dict.fromkeys(options.names)]
    for path in copying.copy(found, options.folder):
        result(path)
    result(f"edit {options.folder / 'ablations' / found[0].path.name}, then: {_next(options.folder, found[0].path)}")
    return 0


def _next(folder: Path, table: Path) -> str:
    """The command that plans the copied table."""
    change = "" if folder.resolve() == Path.cwd() else f"cd {folder} && "
    return f"{change}rislab ablate plan {table.stem}"
