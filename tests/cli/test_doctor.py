"""`rislab doctor`: a page without secrets, and each way in which a file of CLIP weights can be wrong, by its own message."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rislab.cli.main import main
from rislab.data.toy.vocabulary import ToyVocabulary
from rislab.encoders.clip import check
from rislab.encoders.clip.dense import Prompts
from rislab.encoders.clip.tokens import Tokenizer
from rislab.encoders.clip.transformers_names import to_transformers
from rislab.encoders.clip.trunk import CLIPSpec, load
from rislab.errors import DataError
from tests.encoders.archives import openai_archive

TINY = "rislab-tiny-ViT"
NAMES = ("cat", "traffic light", "hot dog", "person", "sky")


def clip(seed: int, name: str = TINY) -> "open_clip.CLIP":
    """Random weights, large enough for the activation to make a difference."""
    torch.manual_seed(seed)
    model = load(CLIPSpec(name))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
    return model.eval()


def golden(folder: Path, model: "open_clip.CLIP", quick: bool, name: str = TINY) -> str:
    """A folder of text embeddings as a CLIP gives them with one of the activations, in half precision."""
    folder.mkdir(exist_ok=True)
    check.with_activation(model, quick)
    vectors = Prompts(model, Tokenizer(name)).raw([f"a {each}" for each in NAMES])
    np.save(folder / "few_clip_a+cname.npy", vectors.numpy().astype(np.float16))
    (folder / "few_names.txt").write_text("".join(f"{each}\n" for each in NAMES))
    (folder / "model.txt").write_text(f"{name}\n")
    return str(folder)


def state_of(model: "open_clip.CLIP") -> dict[str, Tensor]:
    return {key: value.clone().contiguous() for key, value in model.state_dict().items()}


def doctor(capsys: pytest.CaptureFixture[str], *options: object) -> tuple[int, str, str]:
    code = main(["doctor", *map(str, options)])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One CLIP in every form."""
    folder = tmp_path_factory.mktemp("weights")
    state = state_of(clip(0))
    found = {name: folder / file for name, file in (
        ("openai", "ViT.pt"), ("open_clip", "open_clip.bin"), ("safetensors", "plain.safetensors"),
        ("transformers", "model.safetensors"), ("old", "old.pth"),
    )}  # fmt: skip
    openai_archive(state, found["openai"])
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, found["open_clip"])
    save_file(state, found["safetensors"])
    save_file({key: value.contiguous() for key, value in to_transformers(state).items()}, found["transformers"])
    torch.save(state, found["old"], _use_new_zipfile_serialization=False)
    return found


@pytest.mark.parametrize("form", ["openai", "open_clip", "safetensors", "transformers", "old"])
def test_the_right_weights_are_fine_in_every_form(
    files: dict[str, Path], form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = golden(tmp_path / "golden", clip(0), quick=True)
    code, out, err = doctor(capsys, "--clip", TINY, "--weights", files[form], "--golden", vectors)
    assert (code, err) == (0, ""), out + err
    assert (
        "text tower: the same; cosine with 5 embeddings of OpenAI's weights: least 1.0000, mean 1.0000 with QuickGELU"
        in out
    )
    assert "\nactivation: QuickGELU" in out
    assert out.endswith("result:     fine\n")
    code, out, err = doctor(capsys, "--clip", TINY, "--weights", files[form], "--golden", vectors, "--json")
    found = json.loads(out)
    assert found["is_fine"]
    tower = found["text tower"]
    assert 1 - tower["mean_gelu"] > 20 * (1 - tower["mean_quick_gelu"]), "two blocks: small, and clear"


def test_weights_of_another_training_under_the_name_are_named_with_their_activation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """LAION's file, say, under OpenAI's name: same size, and GELU."""
    other = tmp_path / "ViT-B-32.safetensors"
    save_file(state_of(clip(1)), other)
    vectors = golden(tmp_path / "golden", clip(0), quick=True)
    code, out, err = doctor(capsys, "--clip", TINY, "--weights", other, "--golden", vectors)
    assert code == 2
    assert err.count("\n") == 1
    assert f"rislab: {other}: these are not OpenAI's weights of {TINY}: mean cosine -0." in err
    assert (
        "LAION's and DataComp's were trained with GELU, and QuickGELU reads those wrongly: set clip.quick_gelu: false"
        in err
    )
    assert "text tower: not the same" in out
    # Said in the config or beside the file, it is meant so.
    assert doctor(capsys, "--clip", TINY, "--weights", other, "--golden", vectors, "--quick-gelu", "false")[0] == 0
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 64}}))
    code, out, err = doctor(capsys, "--clip", TINY, "--weights", other, "--golden", vectors)
    assert (code, err) == (0, ""), out + err
    assert "activation: GELU, by open_clip_config.json" in out
    code, out, err = doctor(capsys, "--clip", TINY, "--weights", other, "--golden", vectors, "--quick-gelu", "true")
    assert code == 2
    assert "its weights need GELU, clip.quick_gelu: true reads them with QuickGELU: set clip.quick_gelu: false" in err


def test_the_activation_is_told_by_embeddings_alone(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same weights and sizes; only what the embeddings were made with differs."""
    for quick, word in ((True, "QuickGELU"), (False, "GELU")):
        vectors = golden(tmp_path / f"golden-{quick}", clip(0), quick)
        given = ("--clip", TINY, "--weights", files["open_clip"], "--golden", vectors)
        assert f"\nactivation: {word}\n" in doctor(capsys, *given)[1]
        code, _, err = doctor(capsys, *given, "--quick-gelu", str(not quick).lower())
        assert code == 2
        assert f"its weights need {word}, clip.quick_gelu: {str(not quick).lower()} reads them with " in err


def test_another_width_is_named_with_the_models_that_have_it(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = doctor(capsys, "--clip", "ViT-B/32", "--weights", files["openai"])
    assert code == 2
    assert err.count("\n") == 1
    assert "not of ViT-B-32's size: width of the text tower 32 instead of 512, blocks of the text" in err
    assert f"; it has the size of {TINY}\n" in err
    assert "file:       whole; an archive of OpenAI's" in out
    state = state_of(clip(0)) | {"text_projection": torch.zeros(64, 80), "visual.proj": torch.zeros(64, 80)}
    save_file(state, tmp_path / "a.safetensors")
    err = doctor(capsys, "--clip", TINY, "--weights", tmp_path / "a.safetensors")[2]
    assert "shared channels 80 instead of 64; no model here has its size: a text tower of" in err
    save_file({"weight": torch.zeros(1)}, tmp_path / "a.safetensors")
    err = doctor(capsys, "--clip", TINY, "--weights", tmp_path / "a.safetensors")[2]
    assert "no weights of a CLIP with a text tower: it has no token_embedding.weight" in err


@pytest.mark.parametrize("form", ["openai", "open_clip", "safetensors", "transformers", "old"])
@pytest.mark.parametrize("share", [0.0005, 0.6, 0.9999])
def test_a_truncated_file_is_called_cut_off(
    files: dict[str, Path], form: str, share: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / files[form].name
    content = files[form].read_bytes()
    cut.write_bytes(content[: int(share * len(content))])
    code, _, err = doctor(capsys, "--clip", TINY, "--weights", cut)
    assert code == 2
    assert err.count("\n") == 1
    assert f"{cut}: " in err
    assert "cut off" in err
    assert "fetch it again" in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
            "a pointer of Git LFS, not the weights",
        ),
        (b"<!DOCTYPE html><html>", "a web page, not weights"),
    ],
)
def test_what_is_no_weights_at_all_is_named(
    content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    code, _, err = doctor(capsys, "--clip", TINY, "--weights", tmp_path / "a.pt")
    assert code == 2
    assert message in err


def test_the_shipped_embeddings_are_openais_and_of_their_width() -> None:
    found = check.golden()
    assert (found.name, len(found.texts), found.vectors.shape) == ("ViT-B-32", 80, (80, 512))
    assert found.texts[:2] == ("a person", "a bicycle")
    norms = np.linalg.norm(found.vectors, axis=1)
    assert ((norms > 8) & (norms < 13)).all()
    cosine = (found.vectors @ found.vectors.T) / np.outer(norms, norms)
    near = found.texts[int(np.argsort(cosine[found.texts.index("a cat")])[-2])]
    assert near == "a dog", "rows are in the order of the names"


@pytest.mark.parametrize(
    ("least", "mean", "expected"),
    [
        ((0.9999, 0.95), (0.99995, 0.97), True),
        ((0.95, 0.9999), (0.97, 0.99995), False),
        ((0.95, 0.9), (0.97, 0.92), None),  # other weights
        ((0.9999, 0.9999), (0.99995, 0.99994), None),  # nothing to tell them apart by
    ],
)
def test_what_agreement_says(least: tuple[float, float], mean: tuple[float, float], expected: bool | None) -> None:
    found = check.Agreement(80, least[0], mean[0], least[1], mean[1])
    assert found.quick_gelu is expected
    assert found.is_same == (max(least) > 0.999)


def test_folders_of_embeddings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no NAME_names\.txt with NAME_clip_a\+cname\.npy"):
        check.golden(tmp_path)
    (tmp_path / "x_names.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match=r"embeddings of x_names\.txt cannot be read"):
        check.golden(tmp_path)
    np.save(tmp_path / "x_clip_a+cname.npy", np.zeros((3, 4), np.float16))
    with pytest.raises(DataError, match=r"shape \(3, 4\), expected 2 rows"):
        check.golden(tmp_path)


def test_clip_and_maskclip_are_scored_on_pictures(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With both activations where nothing has decided between them; the numbers are those of `rislab test`."""
    ToyVocabulary(scenes=10, pairs=1, size=48).write(tmp_path / "toy")
    options: list[Any] = ["--clip", TINY, "--weights", files["open_clip"], "--json"]
    options += ["--benchmark", tmp_path / "toy", "--benchmark-name", "toy_voc", "--split", "test"]
    found = json.loads(doctor(capsys, *options)[1])
    assert found["activation"]["quick_gelu"] is None
    assert "not compared: the embeddings at hand are ViT-B-32's" in found["text tower"]["text"]
    assert found["pictures"]["text"].startswith("MaskCLIP scores ")
    assert found["result"]["text"].endswith("the activation is not known: set clip.quick_gelu")
    run = {
        "seed_everything": 0,
        "trainer": {"accelerator": "cpu", "devices": 1, "logger": False, "default_root_dir": str(tmp_path / "run")},
        "model": {
            "class_path": "rislab.methods.maskclip.task.MaskCLIPTask",
            "init_args": {
                "clip": {"name": TINY, "pretrained": str(files["open_clip"]), "quick_gelu": False}, "templates": "photo",
            },
        },
        "data": {
            "class_path": "rislab.datamodules.semantic.SemanticData",
            "init_args": {
                "root": str(tmp_path / "toy"), "name": "toy_voc", "protocol": "toy", "test_splits": ["test"],
            },
        },
    }  # fmt: skip
    (tmp_path / "run.yaml").write_text(json.dumps(run))
    assert main(["test", "--config", str(tmp_path / "run.yaml")]) == 0
    scores = json.loads((tmp_path / "run" / "metrics.json").read_text())["splits"]["test"]
    ours = found["MaskCLIP, GELU"]
    assert (ours["miou_class"], ours["aacc"], ours["pictures"]) == (scores["miou_class"], scores["aacc"], 6)
    assert found["MaskCLIP, QuickGELU"]["miou_class"] != ours["miou_class"]
    capsys.readouterr()
    few = json.loads(doctor(capsys, *options, "--pictures", 2, "--quick-gelu", "true")[1])
    assert few["CLIP"]["pictures"] == 2
    assert "pictures" not in few


def test_mistakes_on_the_command_line(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert "--clip and --weights belong together" in doctor(capsys, "--clip", TINY)[2]
    assert "--golden belongs to --clip" in doctor(capsys, "--golden", "x")[2]
    assert (
        "(did you mean 'rislab-tiny-ViT'?)" in doctor(capsys, "--clip", "rislab-tiny-Vit", "--weights", files["old"])[2]
    )
    assert "no such checkpoint" in doctor(capsys, "--clip", TINY, "--weights", "nowhere.pt")[2]


def test_the_page_says_what_is_there_and_keeps_keys_and_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a-secret-of-forty-characters")
    monkeypatch.setenv("HOME", str(tmp_path / "a-user"))
    monkeypatch.setenv("RISLAB_CACHE", str(tmp_path / "a-user" / "cache"))
    fake = tmp_path / "bin"
    fake.mkdir()
    for name, said in (("sbatch", "slurm 24.05.1"), ("sinfo", "gpu* up 1-00:00:00 4")):
        (fake / name).write_text(f"#!/bin/sh\necho '{said}'\n")
        (fake / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake}:{Path(shutil.which('sh') or '/bin/sh').parent}")
    ToyVocabulary(scenes=5, pairs=1, size=48).write(tmp_path / "a-user" / "data")
    code, out, err = doctor(capsys, "--data", tmp_path / "a-user" / "data")
    assert (code, err) == (0, ""), out + err
    assert torch.__version__.split("+")[0] in out
    assert "sbatch      slurm 24.05.1" in out
    assert "partitions  gpu* up 1-00:00:00 4" in out
    assert "benchmarks  toy_voc" in out
    assert "key     in WANDB_API_KEY" in out
    assert "a-secret" not in out
    assert "a-user" not in out
    found = json.loads(doctor(capsys, "--json")[1])
    assert found.keys() == {"rislab", "packages", "machine", "caches", "data", "environment", "slurm", "wandb"}
