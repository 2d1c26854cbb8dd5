"""Tables are blamed by file and line, all mistakes at once."""

import re
from pathlib import Path

import pytest
import yaml

from rislab.ablation import table
from rislab.ablation.table import METRICS, load
from rislab.errors import ConfigError
from rislab.evaluation.arithmetic import BEST
from rislab.metrics import classes, episodes
from rislab.metrics.referring import PARTS
from tests.worlds import ROOT, tiny_table

TABLES = sorted((ROOT / "ablations").glob("*.yaml"))


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_shipped_tables_are_sound(path: Path) -> None:
    loaded = load(path)
    assert loaded.row(loaded.baseline)
    assert loaded.claims


def test_metrics_of_tables_are_those_that_are_measured() -> None:
    """Written twice, because a plan does without numpy."""
    assert set(METRICS) == {*PARTS, *classes.AVERAGES, *episodes.AVERAGES, BEST}


def broken(folder: Path, old: str, new: str) -> str:
    path = tiny_table(folder, "base: {text_to_pixel: false, decoder_layers: 0}\nfull: {text_to_pixel: true}")
    text = path.read_text().replace(
        "claims: []", "claims:\n- {name: c, text: t, holds: 'oiou[full] > oiou[base]', source: s}"
    )
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "model.decoder_layers: 0",
            "model.decoder_layer: 0",
            "decoder_layer is no option of CRISTask (did you mean 'decoder_layers'?)",
        ),
        ("model.decoder_layers: 0", "model.decoder_layers: 7", "CRISTask takes one of 0, 1, 2, 3, 4"),
        ("model.text_to_pixel: false", "model.text_to_pixel: 'no'", "takes bool"),
        ("oiou[base]", "oiou[bse]", "claim 'c': no row 'bse' (did you mean 'base'?)"),
        ("oiou[base]", "iou[base]", "no metric 'iou' (did you mean 'oiou'?)"),
        ("> oiou", "=> oiou", "claim 'c': cannot read claim"),
        ("baseline: base", "baseline: bass", "baseline 'bass' is no row (did you mean 'base'?)"),
        ("- miou_expr", "- mio_expr", "'mio_expr' (did you mean 'miou_expr'?)"),
        ("title: A table", "titel: A table", "'titel' is no key of the table (did you mean 'title'?)"),
        ("name: full", "name: base", "row 'base' is there already"),
        ("tiny.yaml", "tny.yaml", "no config file"),
    ],
)
def test_mistakes_name_file_line_and_neighbour(tmp_path: Path, old: str, new: str, said: str) -> None:
    message = broken(tmp_path, old, new)
    assert said in message
    line = int(re.search(r"table\.yaml:(\d+)", message)[1])
    lines = (tmp_path / "table.yaml").read_text().splitlines()
    assert any(new.split(":")[0].split("[")[0].strip("- >=") in text for text in lines[line - 1 : line + 1]), message


def test_all_mistakes_are_said_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    message = broken(
        tmp_path, "baseline: base", "baseline: bass\nnonsense: 1\nseeds: [0, 0]"
    )  # `seeds` is there already, further up
    said = [line.partition("  ")[2] for line in message.splitlines()[1:]]
    assert message.startswith("4 mistakes")
    assert [text[:12] for text in said] == ["baseline 'ba", "'nonsense' i", "key 'seeds' ", "seed 0 is th"]


@pytest.mark.parametrize(
    ("switch", "said"),
    [
        ("data.generate.init_args.scene: 3", "data.generate.scene is no option of ToyWorld (did you mean 'scenes'?)"),
        ("data.generate.scenes: many", "data.generate.scenes is 'many', ToyWorld takes int"),
        ("model.clip.nam: RN50", "model.clip.nam is no option of CLIPSpec (did you mean 'name'?)"),
        ("model.clip.name: RN50", None),
        ("data.init_args: {}", "data.init_args is no option of ReferringData"),
        ("data.generate.init_args: {}", "switch 'data.generate.init_args' names no option"),
        ("modl.text_to_pixel: true", "switch 'modl.text_to_pixel' must begin with model. or data."),
        ("model.fpn_out: [1, 2]", "model.fpn_out is [1, 2], CRISTask takes "),
        ("model.base_lr: 1e-4", None),
    ],
    ids=str,
)
def test_switches_are_followed_into_the_classes(tmp_path: Path, switch: str, said: str | None) -> None:
    path = tiny_table(tmp_path)
    path.write_text(path.read_text().replace("model.decoder_layers: 0", switch))
    if said is None:
        load(path)
    else:
        with pytest.raises(ConfigError, match=re.escape(said)):
            load(path)


def test_mistakes_in_a_profile_name_its_config(tmp_path: Path) -> None:
    path = tiny_table(tmp_path, model__init_args__words_len=17)
    with pytest.raises(ConfigError, match=r"tiny.yaml:\d+  model.init_args: words_len is no option .* 'word_len'"):
        load(path)


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "a: \x01", "rows: !!python/object:os.system {}"])
def test_what_is_no_table_is_refused_politely(tmp_path: Path, text: str) -> None:
    (tmp_path / "table.yaml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path / "table.yaml"))):
        load(tmp_path / "table.yaml")


def test_a_key_given_twice_is_a_mistake(tmp_path: Path) -> None:
    assert "given twice" in broken(tmp_path, "title: A table", "title: B\ntitle: A table")


def test_unknown_table_and_row_name_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'cris'"):
        table.find("criss", ROOT / "ablations")
    with pytest.raises(ConfigError, match="did you mean 'base'"):
        load(tiny_table(tmp_path)).row("bas")


def test_paper_cells_are_only_verified_ones() -> None:
    """The published values that could not be checked must not creep in: cells of the table as reviewed."""
    raw = yaml.safe_load((ROOT / "ablations" / "cris.yaml").read_text())
    shown = {
        (row["name"], column): cells["miou_expr"]
        for row in raw["rows"]
        for column, cells in row["paper"].items()
        if "miou_expr" in cells
    }
    assert shown == {
        ("base", "refcoco"): 62.66,
        ("con", "refcoco"): 64.64,
        ("dec1", "refcoco"): 66.31,
        ("con+dec3", "refcoco"): 69.52,
        ("con+dec4", "refcoco"): 69.18,
        ("base", "refcoco+"): 50.17,
        ("con", "refcoco+"): 53.15,
        ("dec1", "refcoco+"): 54.73,
        ("con+dec3", "refcoco+"): 61.39,
        ("con+dec3", "gref"): 59.35,
    }
