"""Options that say which data set of a folder is meant."""

import argparse


def add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset", metavar="NAME", help="its folder below the root (default: refcoco, or the first there is)"
    )
    parser.add_argument(
        "--split-by", metavar="NAME", help="partition: unc, umd, google, final (default: the usual one)"
    )
