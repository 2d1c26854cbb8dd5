"""What a file of checkpoints may give for a method, and what is said of anything else."""

from pathlib import Path

import pytest

from rislab.cli.matrix import read_checkpoints, weights
from rislab.errors import ConfigError


def given_by(file: Path, runs: Path) -> dict[str, Path]:
    return {name: weights(name, given, file, runs) for name, given in read_checkpoints(file).items()}


def test_paths_lie_beside_the_file(tmp_path: Path) -> None:
    file = tmp_path / "more" / "checkpoints.yaml"
    file.parent.mkdir()
    file.write_text(f"cris: best.ckpt\nlavt: {tmp_path}/lavt.ckpt\n")
    assert given_by(file, tmp_path) == {"cris": tmp_path / "more" / "best.ckpt", "lavt": tmp_path / "lavt.ckpt"}
    assert read_checkpoints(None) == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("cris: {official: a.pth, confg: b.yaml}", r"cris: no key 'confg' \(did you mean 'config'\?\)"),
        ("cris: {official: a.pth}", r"expected a path, or \{official: FILE, config: RECIPE.yaml\}"),
        ("cris: {official: 3, config: b.yaml}", r"expected a path, or \{official"),
        ("cris: {official: gone.pth, config: gone.yaml}", r"cris: no file .*gone\.pth"),
        ("cris: {official: there.pth, config: gone.yaml}", r"cris: no file .*gone\.yaml"),
        ("cris: 3", "expected `method: path` on each line"),
        ("- cris", "expected `method: path` on each line"),
        ("cris: [", r"c\.yaml:\d+ "),
    ],
)
def test_anything_else_is_one_line_with_the_nearest_name(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(content + "\n")
    (tmp_path / "there.pth").write_bytes(b"")
    with pytest.raises(ConfigError, match=said):
        given_by(file, tmp_path)
    assert not (tmp_path / "official").exists()
