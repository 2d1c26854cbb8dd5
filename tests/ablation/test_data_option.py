"""`--data` and the list of what is missing, for every data class that there is."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from rislab.ablation import plan, signature, table
from rislab.ablation.configs import relocated
from rislab.ablation.plan import Planned
from rislab.cli.main import main
from rislab.errors import ConfigError, DataError
from tests.worlds import ROOT, tiny_table


def planned(path: Path, profile: str, data: str | None = None) -> list[Planned]:
    loaded = table.load(path)
    return plan.plan(loaded, loaded.profile(profile), [0, 1], Path("runs"), None, data)


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def semantic_table(folder: Path) -> Path:
    """A table over label maps alone."""
    path = tiny_table(folder, "base: {}\nother: {bg_thresh: 0.4}")
    config = yaml.safe_load((ROOT / "experiments/maskclip/toy_voc.yaml").read_text())
    config["data"] = yaml.safe_load((ROOT / "experiments/benchmarks/voc21.yaml").read_text())["data"]
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    raw = yaml.safe_load(path.read_text())
    raw["metrics"], raw["paper"]["method"] = ["miou_class"], "maskclip"
    path.write_text(yaml.safe_dump(raw))
    return path


def test_pairs_and_their_benchmark_move_together_and_the_trials_stay(tmp_path: Path) -> None:
    here, there, elsewhere = (
        planned(ROOT / "ablations/tcl.yaml", "voc21", data) for data in (None, str(tmp_path), "/d")
    )
    assert [cell.hash for cell in here] == [cell.hash for cell in there] == [cell.hash for cell in elsewhere]
    options = there[0].config["data"]["init_args"]
    assert options["benchmark_data"]["init_args"]["root"] == str(tmp_path)
    assert options["shards"][0] == f"{tmp_path}/gcc3m/gcc-train-{{000000..000347}}.tar"
    assert "root" not in options, "an option that the class does not have"
    absent = plan.missing_data(there)
    assert absent == sorted(
        [
            f"{tmp_path}/VOCdevkit/VOC2012/JPEGImages",
            f"{tmp_path}/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt",
            f"{tmp_path}/gcc3m/gcc-train-{{000000..000347}}.tar",
            f"{tmp_path}/gcc12m/cc-{{000000..001175}}.tar",
        ]
    )
    profile = table.load(ROOT / "ablations/tcl.yaml").profile("voc21")
    with pytest.raises(DataError, match=r"host\.robots\.ox\.ac\.uk/pascal/VOC\.") as caught:
        plan.require_data(there, profile)
    assert "refer" not in str(caught.value), "what is given is what is missing"
    for name in ("VOCdevkit/VOC2012/JPEGImages/x", "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("gcc3m/gcc-train-000000.tar", "gcc12m/cc-000500.tar"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert plan.missing_data(there) == []


def test_a_table_over_label_maps_is_planned_with_data_and_without_a_seed_that_nothing_takes(tmp_path: Path) -> None:
    path = semantic_table(tmp_path)
    here, there = planned(path, "toy"), planned(path, "toy", str(tmp_path / "disk"))
    assert [cell.hash for cell in here] == [cell.hash for cell in there]
    assert there[0].config["data"]["init_args"]["root"] == str(tmp_path / "disk")
    known = signature.read("rislab.datamodules.semantic.SemanticData").options
    assert set(there[0].config["data"]["init_args"]) <= set(known), "no option that the class would not accept"
    assert plan.missing_data(there)[0].startswith(f"{tmp_path}/disk/VOCdevkit")


def test_a_generated_world_needs_nothing(tmp_path: Path) -> None:
    assert plan.missing_data(planned(ROOT / "ablations/tcl.yaml", "toy", str(tmp_path))) == []


@pytest.mark.parametrize(
    "path", sorted((ROOT / "experiments").glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_every_shipped_config_can_say_where_its_data_lie(path: Path) -> None:
    data: dict[str, Any] = yaml.safe_load(path.read_text()).get("data", {})
    if "class_path" not in data:
        return  # a stage, laid over another file
    moved = relocated(data, Path("/disk"))
    assert "/disk" in str(moved)
    assert not list(signature.check_config(moved["class_path"], moved["init_args"]))
    assert data != moved


def test_a_class_that_does_not_say_so_is_named() -> None:
    with pytest.raises(ConfigError, match=r"else\.Data declares no root_option"):
        relocated({"class_path": "else.Data", "init_args": {}}, Path("/disk"))


def test_missing_lmdb_files_are_named(tmp_path: Path) -> None:
    options = {
        "root": str(tmp_path),
        "dataset": "refcoco",
        "layout": "lmdb",
        "train_split": "train",
        "val_split": "val",
    }
    from rislab.data.required_files import referring

    assert [each.path for each in referring(options)] == [f"{tmp_path}/lmdb/refcoco/{s}.lmdb" for s in ("train", "val")]


def test_a_table_over_label_maps_says_that_its_data_take_no_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = yaml.safe_load((ROOT / "ablations" / "tcl.yaml").read_text())
    config = str(ROOT / "experiments" / "maskclip" / "toy_voc.yaml")
    table["profiles"] = {"toy": table["profiles"]["toy"] | {"config": [config]}}
    sizes = {"a": 96, "b": 64}
    table["rows"] = [{"name": row, "label": row, "switches": {"model.image_size": size}} for row, size in sizes.items()]
    table |= {"baseline": "a", "claims": [], "watch": {}}
    (tmp_path / "labels.yaml").write_text(yaml.safe_dump(table))
    arguments = ["ablate", "plan", str(tmp_path / "labels.yaml"), "--runs", str(tmp_path / "runs"), "--seeds", "2"]
    assert main(arguments) == 0
    assert "SemanticData draws nothing: a seed is the method's alone" in capsys.readouterr().out
