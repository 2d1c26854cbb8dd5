"""A small table through the real command line: one row trains, one diverges; plan, status, report and segment agree."""

import json
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from rislab.ablation import plan, table
from rislab.ablation.trial import TrialDir
from rislab.cli.ablate.run_view import RunView
from rislab.launch.table_run import Request, TableRun, run_together
from tests.worlds import rislab, rislab_here, tiny_table

ROWS = "base: {text_to_pixel: false, decoder_layers: 0}\nnan: {decoder_layers: 1, base_lr: 1.0e+30}"


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """(folder, options) of a table that was run once."""
    folder = tmp_path_factory.mktemp("campaign")
    table = tiny_table(folder, ROWS)
    text = table.read_text().replace(
        "claims: []", "claims:\n- {name: c, text: 'a & b', holds: 'miou_expr[nan] > miou_expr[base]', source: s}"
    )
    table.write_text(text)
    options = [str(table), "--runs", str(folder / "runs")]
    done = rislab_here("ablate", "run", *options, "--jobs", "2", "--threads", "1")
    assert done.returncode == 1, done.stdout + done.stderr  # one row diverged
    assert "nan s0: diverged: loss term text_to_pixel is not finite" in done.stdout
    return folder, options


def status(options: list[str]) -> dict[str, dict[str, object]]:
    shown = rislab("ablate", "status", *options, "--json")
    assert shown.returncode == 0, shown.stderr
    return {row["trial"]: row for row in json.loads(shown.stdout)}


def test_one_rows_fault_is_its_own(campaign: tuple[Path, list[str]]) -> None:
    found = status(campaign[1])
    assert found["base s0"]["state"] == "done"
    assert found["nan s0"]["state"] == "diverged"


def test_a_second_run_does_nothing_quickly(campaign: tuple[Path, list[str]]) -> None:
    folder, options = campaign
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*") if path.is_file()}
    began = time.monotonic()
    done = rislab_here("ablate", "run", *options)
    assert time.monotonic() - began < 4  # 2 s on an idle machine; tests share theirs
    assert done.returncode == 1
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_tables_with_rows_of_one_name_run_in_one_pool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = []
    for layers, name in enumerate(("one", "two")):
        rows = f"base: {{decoder_layers: {layers}}}"
        path = tiny_table(tmp_path, rows, trainer__max_epochs=1, trainer__limit_train_batches=1)
        path = path.rename(tmp_path / f"{name}.yaml")
        path.write_text(path.read_text().replace("name: tiny", f"name: {name}", 1))
        loaded = table.load(path)
        cells = plan.plan(loaded, loaded.profile("toy"), [0], tmp_path / "runs")
        request = Request(tmp_path / "runs", str(path), jobs=2)
        runs.append(TableRun(loaded, loaded.profile("toy"), cells, request, RunView()))
    assert run_together(runs) == [0, 0]
    said = capsys.readouterr().err
    assert "2 tables: 2 of 2 trials to run, 2 at once" in said
    for run in runs:
        assert f"{run.table.name} base s0: done" in said
        assert run.cells[0].directory.parent.name == run.table.name
        assert run.cells[0].state == "done"
    assert run_together(runs) == [0, 0]
    assert "trials to run" not in capsys.readouterr().err


def test_report_shows_what_failed(campaign: tuple[Path, list[str]]) -> None:
    folder, options = campaign
    first = rislab("ablate", "report", *options, "--out", str(folder / "reports"))
    assert first.returncode == 0, first.stderr
    files = {path: path.read_bytes() for path in sorted((folder / "reports" / "tiny").iterdir())}
    assert {path.suffix for path in files} == {".md", ".csv", ".tex", ".html"}
    markdown = (folder / "reports" / "tiny" / "report.md").read_text()
    assert "diverged" in markdown
    assert "**not run**" in markdown
    assert "not the paper's benchmark" in markdown
    rislab("ablate", "report", *options, "--out", str(folder / "reports"))
    assert {path: path.read_bytes() for path in files} == files


def test_answers_are_kept_and_shown_beside_the_truth(campaign: tuple[Path, list[str]]) -> None:
    folder, options = campaign
    (trial,) = (folder / "runs" / "tiny").glob("base--*")
    scores = pq.read_table(trial / "scores.parquet").to_pydict()
    answers = pq.read_table(trial / "answers.parquet").to_pydict()
    kept = dict(zip(answers["unit"], zip(*(answers[n] for n in ("height", "width", "data")), strict=True), strict=True))
    for split, sent_id, prediction in zip(*(scores[n] for n in ("split", "sent_id", "prediction")), strict=True):
        height, width, data = kept[sent_id]
        assert coco_mask.area({"size": [height, width], "counts": data}) == prediction, (split, sent_id)
    done = rislab("ablate", "browse", *options, "--out", str(folder / "pages"))
    assert done.returncode == 0, done.stderr
    assert "nan s0 is not shown: diverged" in done.stderr
    assert (folder / "pages" / "tiny" / "browse" / "data" / "answers-0-0.js").is_file()


def test_config_file_alone_repeats_a_trial(campaign: tuple[Path, list[str]], tmp_path: Path) -> None:
    (trial,) = (campaign[0] / "runs" / "tiny").glob("base--*")
    options = ("--trainer.default_root_dir", str(tmp_path / "again"), "--trial.answers_mb", "0")
    done = rislab("fit", "--config", str(trial / "config.yaml"), *options)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "again" / "answers.parquet").exists()
    for name in ("metrics.json", "scores.parquet"):
        assert (tmp_path / "again" / name).read_bytes() == (trial / name).read_bytes()


def test_verify_repeats_what_is_done_and_says_what_differs(campaign: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, options = campaign
    (trial,) = (folder / "runs" / "tiny").glob("base--*")
    kept = {path: path.read_bytes() for path in trial.rglob("*") if path.is_file()}
    again = tmp_path / "again"
    done = rislab("ablate", "verify", *options, "--keep", str(again))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "base s0: equal" in done.stdout
    assert "1 of 1 trials are equal to the byte" in done.stdout
    best = f"tiny/{trial.name}/checkpoints/best.ckpt"
    assert (again / best).read_bytes() == (folder / "runs" / best).read_bytes(), "weights of equal runs are equal files"
    assert kept == {path: path.read_bytes() for path in trial.rglob("*") if path.is_file()}
    assert TrialDir(trial).inspect(thorough=True)[1].has_digests


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_a_finished_directory_is_not_written_into(command: str, campaign: tuple[Path, list[str]]) -> None:
    (trial,) = (campaign[0] / "runs" / "tiny").glob("base--*")
    kept = {path: path.read_bytes() for path in trial.rglob("*") if path.is_file()}
    done = rislab_here(command, "--config", str(trial / "config.yaml"))
    assert done.returncode == 2
    assert "holds a finished trial, and nothing was changed" in done.stderr
    assert kept == {path: path.read_bytes() for path in trial.rglob("*") if path.is_file()}


def test_segment_draws_and_writes_masks(campaign: tuple[Path, list[str]], tmp_path: Path) -> None:
    (trial,) = (campaign[0] / "runs" / "tiny").glob("base--*")
    image, exif = tmp_path / "photo.jpg", Image.Exif()
    exif[0x0112] = 6  # a phone held upright: 70 x 50 as stored, 50 x 70 as viewers show it
    stored = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    Image.fromarray(stored).save(image, exif=exif)
    texts = ["red circle", "دائرة حمراء 🙂", "word " * 300]
    outputs = ["--out", str(tmp_path / "o.png"), "--masks", str(tmp_path / "m"), "--json", "-"]
    checkpoint = str(trial / "checkpoints" / "best.ckpt")
    done = rislab("segment", str(image), *texts, "--checkpoint", checkpoint, *outputs)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [entry["text"] for entry in found] == texts
    for number, entry in enumerate(found):
        rle = entry["segmentation"]
        mask = coco_mask.decode({"size": rle["size"], "counts": rle["counts"].encode()})
        assert mask.shape == (70, 50)
        assert np.array_equal(cv2.imread(str(tmp_path / "m" / f"{number}.png"), cv2.IMREAD_GRAYSCALE) > 0, mask > 0)
    drawn = cv2.imread(str(tmp_path / "o.png"))
    assert drawn is not None
    assert drawn.shape[0] > drawn.shape[1]
    image.write_bytes(image.read_bytes()[:-900])
    done = rislab("segment", str(image), "x", "--checkpoint", checkpoint, "--out", str(tmp_path / "p.png"))
    assert (done.returncode, (tmp_path / "p.png").exists()) == (2, False)
    assert "photo.jpg: not a readable image (truncated or damaged JPEG" in done.stderr


def test_class_names_share_the_pixels(campaign: tuple[Path, list[str]], tmp_path: Path) -> None:
    (trial,) = (campaign[0] / "runs" / "tiny").glob("base--*")
    image = tmp_path / "photo.png"
    cv2.imwrite(str(image), np.random.default_rng(0).integers(0, 255, (50, 120, 3), np.uint8))
    checkpoint = [
        "--checkpoint",
        str(trial / "checkpoints" / "best.ckpt"),
        "--json",
        "-",
        "--out",
        str(tmp_path / "o.png"),
    ]
    for background in ([], ["--background"]):
        done = rislab("segment", str(image), "--classes", "dog, cat,sky", *background, *checkpoint)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert [entry["text"] for entry in found] == ["dog", "cat", "sky"]
        pixels = sum(entry["pixels"] for entry in found)
        assert pixels == 50 * 120 if not background else pixels <= 50 * 120


def test_predict_writes_every_mask(campaign: tuple[Path, list[str]], tmp_path: Path) -> None:
    (trial,) = (campaign[0] / "runs" / "tiny").glob("base--*")
    best = str(trial / "checkpoints" / "best.ckpt")
    out = ["--trainer.default_root_dir", str(tmp_path), "--return_predictions", "false"]
    done = rislab("predict", "--config", str(trial / "config.yaml"), "--ckpt_path", best, *out)
    assert done.returncode == 0, done.stderr
    answers = json.loads((tmp_path / "predictions" / "masks.json").read_text())
    ids = pq.read_table(trial / "scores.parquet").column("sent_id").to_pylist()
    areas = pq.read_table(trial / "scores.parquet").column("prediction").to_pylist()
    found = {a["sent_id"]: int(coco_mask.area(a["segmentation"])) for a in answers}
    assert found == dict(zip(ids, areas, strict=True))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["segment", "none.jpg", "x", "--checkpoint", "c", "--out", "o.png"], "none.jpg: no such image"),
        (["segment", __file__, "x", "--checkpoint", "c"], "not a readable image"),
        (["segment", "docs/report.png", "x", "--checkpoint", "c"], "c: no such file, directory or row"),
        (["segment", __file__, "--checkpoint", "c", "--out", "o.png"], 'give sentences, or --classes "dog, cat, sky"'),
        (
            ["segment", __file__, "--classes", "dog, dog, cat", "--checkpoint", "c", "--out", "o.png"],
            "'dog' is given more than",
        ),
        (["segment", __file__, "x", "--background", "--checkpoint", "c", "--out", "o.png"], "--background belongs to"),
        (
            ["segment", "docs/report.png", "x", "--checkpoint", __file__, "--out", "o.png"],
            "not a checkpoint that can be read",
        ),
        (["ablate", "plan", "criss"], "did you mean 'cris'"),
        (["ablate", "run", "cris", "--rows", "bas"], "did you mean 'base'"),
        (["ablate", "run", "cris", "--seeds", "x"], "expected how many"),
        (["ablate", "run", "cris", "--jobs", "0"], "expected at least 1"),
        (["ablate", "run", "cris", "--profile", "refcoco", "--data", "nowhere"], "refs(unc).p"),
        (["data", "toy", "--out", "x", "--scenes", "3"], "at least 20 scenes"),
        (["fit", "--config", "none.yaml"], "none.yaml"),
        (["fit", "--config", "experiments/cris/toy.yaml", "--model.init_args.decoder_layer=3"], "decoder_layer"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_mistakes_are_told_with_exit_code_2_and_nothing_written(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    runs = ["--runs", str(tmp_path / "runs")] if arguments[0] == "ablate" else []
    done = rislab_here(*arguments, *runs)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
