"""`--tables DIR`, an option of every command that takes tables or recipes by name."""

import argparse

from rislab.paths import user_path


def add_tables_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tables",
        type=user_path,
        metavar="DIR",
        help="folder of more tables, as `rislab init DIR` makes it; the working directory comes first",
    )
