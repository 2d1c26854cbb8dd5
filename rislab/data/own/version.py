"""Whether an imported set is still the one that a trial was planned with."""

import hashlib
from pathlib import Path

from rislab.data.required_files import IMPORT
from rislab.errors import DataError
from rislab.files import read_json
from rislab.paths import contents


def require_version(folder: Path, version: str) -> None:
    """Raises DataError: not imported, imported anew since, or edited by hand.

    Args:
        folder: of the data set.
        version: that is expected.
    """
    said = read_json(folder / IMPORT)
    if not isinstance(said, dict) or not isinstance(said.get("sha256"), dict):
        raise DataError(
            f"{folder / IMPORT}: not there or not readable; version {version} was expected (data.init_args.version)"
        )
    if said.get("version") != version:
        raise DataError(
            f"{folder}: is version {said.get('version')}, this run was planned with {version}: the set was imported anew since"
        )
    for name, digest in said["sha256"].items():
        if hashlib.sha256(contents(folder / name)).hexdigest() != digest:
            raise DataError(f"{folder / name}: was changed after its import; import it again (data import --replace)")
