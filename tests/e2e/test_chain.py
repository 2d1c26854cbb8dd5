"""Two stages through the real command line: trained in order, shared, resumed in the middle, reported by stage."""

import json
from pathlib import Path

import pytest
import torch

from tests.worlds import rislab, rislab_here, tiny_chain

ROWS = """
clip: {adapters: false, cfe: false, ske: false}
full: {ske: true}
levels: {decoder_levels: [2, 3, 4]}
"""


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("chain")
    options = [str(tiny_chain(folder, ROWS)), "--runs", str(folder / "runs")]
    done = rislab_here("ablate", "run", *options, "--jobs", "2", "--threads", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, options


def trials(folder: Path) -> dict[str, Path]:
    """Directories by row and stage."""
    return {"-".join(path.name.split("--")[:2]): path for path in (folder / "runs" / "tiny").iterdir()}


def test_every_stage_of_every_row_is_done_once(chain: tuple[Path, list[str]]) -> None:
    folder, options = chain
    shown = rislab("ablate", "plan", *options, "--json")
    cells = json.loads(shown.stdout)["trials"]
    assert {cell["state"] for cell in cells} == {"done"}
    shared = [cell for cell in cells if cell["stage"] == "patch" and cell["row"] in ("full", "levels")]
    assert len({cell["directory"] for cell in shared}) == 1
    assert trials(folder).keys() == {"clip-patch", "clip-pixel", "full-patch", "full-pixel", "levels-pixel"}
    assert "5 trials for 6 stages of rows: 1 are shared, 0 to run" in rislab("ablate", "plan", *options).stdout


def test_the_second_stage_holds_the_first_to_the_bit_and_no_trunk(chain: tuple[Path, list[str]]) -> None:
    files = {name: path / "checkpoints" / "best.ckpt" for name, path in trials(chain[0]).items()}
    states = {name: torch.load(file, weights_only=True)["state_dict"] for name, file in files.items()}
    first, second = states["full-patch"], states["full-pixel"]
    assert all(torch.equal(second[key], value) for key, value in first.items())
    assert {key.split(".")[1] for key in second.keys() - first.keys()} == {"decoder"}
    assert not any(".clip." in key or ".visual." in key for key in second)
    assert not states["clip-patch"], "nothing is trained, nothing is stored"
    assert files["full-pixel"].stat().st_size < 3 << 20


def test_the_middle_of_a_chain_is_gone_on_from(chain: tuple[Path, list[str]]) -> None:
    folder, options = chain
    found = trials(folder)
    kept = (found["full-patch"] / "metrics.json").stat().st_mtime_ns
    before = (found["full-pixel"] / "metrics.json").read_bytes()
    (found["full-pixel"] / "metrics.json").unlink()
    (found["full-pixel"] / "status.json").unlink()
    (found["full-pixel"] / "checkpoints" / "best.ckpt").unlink()
    done = rislab_here("ablate", "run", *options, "--threads", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 5 trials to run" in done.stderr
    assert (found["full-patch"] / "metrics.json").stat().st_mtime_ns == kept
    assert (found["full-pixel"] / "metrics.json").read_bytes() == before


def test_a_failed_stage_keeps_what_follows_from_starting(tmp_path: Path) -> None:
    options = [str(tiny_chain(tmp_path, "nan: {base_lr: 1.0e+30}")), "--runs", str(tmp_path / "runs")]
    done = rislab_here("ablate", "run", *options, "--threads", "1")
    assert done.returncode == 1, done.stdout + done.stderr
    states = {row["trial"]: row["state"] for row in json.loads(rislab("ablate", "status", *options, "--json").stdout)}
    assert states == {"nan s0 patch": "diverged", "nan s0 pixel": "pending"}


def test_the_report_shows_both_stages(chain: tuple[Path, list[str]]) -> None:
    folder, options = chain
    done = rislab("ablate", "report", *options, "--out", str(folder / "reports"))
    assert done.returncode == 0, done.stderr
    text = (folder / "reports" / "tiny" / "report.md").read_text()
    assert "patch: mIoU (expr)" in text
    patch = json.loads((trials(folder)["full-patch"] / "metrics.json").read_text())["splits"]["val"]["miou_expr"]
    pixel = json.loads((trials(folder)["full-pixel"] / "metrics.json").read_text())["splits"]["val"]["miou_expr"]
    line = next(line for line in text.splitlines() if line.startswith("| full |"))
    assert f"{patch:.2f}" in line
    assert f"{pixel:.2f}" in line
    assert "5 of 5 trials done" in text
