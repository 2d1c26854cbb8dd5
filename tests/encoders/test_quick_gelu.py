"""QuickGELU belongs to the weights: which activation the built model has, for every way to name weights."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from jsonargparse import ArgumentParser
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file
from torch import nn

from rislab.ablation.identity import digest, identity
from rislab.encoders.clip.trunk import CLIPSpec, load, quick_gelu_of, without_weights
from rislab.errors import ConfigError
from rislab.methods.base import TextSegmenter
from rislab.training.inference import without_pretraining
from tests.encoders.archives import openai_archive

TINY = "rislab-tiny-ViT"


def has_quick_gelu(model: nn.Module) -> bool:
    """By the activations of both towers, which must agree."""
    kinds = {type(module) for module in model.modules() if isinstance(module, (QuickGELU, nn.GELU))}
    assert len(kinds) == 1, kinds
    return kinds == {QuickGELU}


@pytest.mark.parametrize(
    ("name", "tag", "expected"),
    [
        ("RN50", "openai", True),
        ("RN50", "cc12m", True),
        ("ViT-B-32", "openai", True),
        ("ViT-B-32", "OpenAI", True),
        ("ViT-B-32-quickgelu", "metaclip_400m", True),
        ("ViT-B-32", "laion2b_s34b_b79k", False),
        ("ViT-B-16", "datacomp_xl_s13b_b90k", False),
        ("ViT-L-14", "laion2b_s32b_b82k", False),
        ("ViT-B-32", None, True),
    ],
)
def test_a_tag_decides(name: str, tag: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    create = open_clip.create_model

    def without_download(*args: Any, **options: Any) -> nn.Module:
        return create(*args, **options | {"pretrained": None, "load_weights": False})

    monkeypatch.setattr(open_clip, "create_model", without_download)
    with torch.device("meta"):
        assert has_quick_gelu(load(CLIPSpec(name, tag))) == expected
        # The same model for weights that come afterwards, say from a checkpoint.
        later = without_weights({"name": name, "pretrained": tag})
        assert later["pretrained"] is None
        assert has_quick_gelu(load(CLIPSpec(**later))) == expected
        clip = {"name": name, "pretrained": tag, "quick_gelu": None}
        recipe = {"class_path": "rislab.methods.cris.task.CRISTask", "init_args": {"clip": clip}}
        assert without_pretraining(recipe)["init_args"]["clip"].get("quick_gelu") in (None, expected)
    if tag is not None:
        with pytest.raises(ConfigError, match=f"clip.quick_gelu is {str(not expected).lower()}, but the weights"):
            load(CLIPSpec(name, tag, quick_gelu=not expected))


def test_a_file_is_recognised_or_must_say(tmp_path: Path) -> None:
    model = load(CLIPSpec(TINY))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    file, archive = str(tmp_path / "a.safetensors"), str(tmp_path / "openai.pt")
    save_file(state, file)
    openai_archive(state, Path(archive))
    with pytest.raises(ConfigError, match=r"does not say whether .* QuickGELU: set clip\.quick_gelu") as said:
        load(CLIPSpec(TINY, file))
    assert "\n" not in str(said.value)
    for given in (True, False):
        again = load(CLIPSpec(TINY, file, given))
        assert has_quick_gelu(again) == given
        assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
    found = load(CLIPSpec(TINY, archive))
    assert has_quick_gelu(found)
    for key, value in found.state_dict().items():
        half = state[key].half().float() if value.is_floating_point() else state[key]
        assert torch.equal(value, half), key
    with pytest.raises(ConfigError, match=r"clip\.quick_gelu is false, but the weights"):
        load(CLIPSpec(TINY, archive, quick_gelu=False))
    # A TorchScript archive of another training code says nothing.
    openai_archive(state, Path(archive), extras=False)
    with pytest.raises(ConfigError, match=r"set clip\.quick_gelu"):
        load(CLIPSpec(TINY, archive))
    assert quick_gelu_of({"name": TINY, "pretrained": archive, "quick_gelu": None}), "a trained model had an archive"


def test_the_option_changes_no_identity_unless_it_is_given() -> None:
    def hashed(**clip: Any) -> str:
        options = {"clip": {"name": "RN50", "pretrained": "openai"} | clip}
        return digest(identity({"model": {"class_path": "rislab.methods.cris.task.CRISTask", "init_args": options}}))

    assert hashed() == hashed(quick_gelu=None) != hashed(quick_gelu=True)


def test_null_on_the_command_line_means_no_weights() -> None:
    """jsonargparse makes the text "None" of it."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(TextSegmenter, "model")
    options = {"image_size": 64, "clip.name": TINY, "clip.pretrained": "null"}
    given = [f"--model.init_args.{name}={value}" for name, value in options.items()]
    config = parser.parse_args(["--model=rislab.methods.clip.task.CLIPTask", *given])
    spec = parser.instantiate(config).model.prompts.tokenizer.name, CLIPSpec(TINY, "None")
    assert spec == (TINY, CLIPSpec(TINY))
