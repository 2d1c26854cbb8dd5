"""Weights from a file or not to be had; captions from the web."""

import argparse
import base64
import random
import time
from pathlib import Path

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rislab.encoders.clip import trunk
from rislab.encoders.clip.tokens import KEPT, Tokenizer, merged
from rislab.encoders.clip.trunk import CLIPSpec
from rislab.encoders.clip.weights import OPENAI_EXTRAS
from rislab.errors import ConfigError, DataError

TOKENIZER = open_clip.get_tokenizer("RN50")


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.text(max_size=300),
        st.text(alphabet="ab", min_size=65, max_size=400),
        st.text(alphabet="the catsé漢&amp;<>' \n", max_size=500),
        st.lists(st.sampled_from(["red", "cup's", "THE", "&lt;", "naïve", "1234", "Ã©"]), max_size=120).map(" ".join),
    )
)
def test_tokens_are_open_clips(text: str) -> None:
    assert torch.equal(Tokenizer("RN50")([text], 77), TOKENIZER([text], 77))


@pytest.mark.parametrize(
    "text", ["漢字 Ã©<b> &amp;lt;\n" * 7000, "a &amp;amp;\n\n  \n" * 9000 + "<", "x" + "\n" * 70_000 + "tail"]
)
def test_the_beginning_of_a_long_text_is_the_texts(text: str) -> None:
    assert torch.equal(Tokenizer("RN50")([text], 77), TOKENIZER([text], 77))


def test_long_words_are_merged_as_short_ones() -> None:
    rng = random.Random(0)
    for _ in range(200):
        word = "".join(rng.choices("abcdeinorst", k=rng.randrange(1, 200)))
        assert merged(word, TOKENIZER.bpe_ranks) == TOKENIZER.bpe(word).split(" ")


@pytest.mark.parametrize(
    "text",
    [
        "xyz" * 7000,
        base64.b64encode(random.Random(0).randbytes(750_000)).decode(),
        "red cup " * 125_000,
        "a\n" * 500_000,
    ],
    ids=["one word", "base64", "words", "lines"],
)
def test_captions_of_a_megabyte_take_no_time(text: str) -> None:
    """The work grows with the length, not with its square: hours for one word, or 20 s for lines."""
    tokenizer = Tokenizer("RN50")
    began = time.process_time()
    assert len(tokenizer.ids(text)) <= KEPT
    assert time.process_time() - began < 5


def test_a_file_of_weights_gives_the_same_clip(tmp_path: Path) -> None:
    model = trunk.load(CLIPSpec("rislab-tiny-RN"))
    state = model.state_dict()
    extras = {name: torch.tensor(1) for name in OPENAI_EXTRAS}
    path = tmp_path / "clip.pt"
    torch.save({"state_dict": state | extras, "args": argparse.Namespace(lr=1)}, path)
    again = trunk.load(CLIPSpec("rislab-tiny-RN", str(path), quick_gelu=True))
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
    torch.save({key: value for key, value in state.items() if key != "visual.conv1.weight"}, path)
    with pytest.raises(
        DataError, match=r"clip\.pt: its weights are not this model's; 1 missing: visual\.conv1\.weight"
    ):
        trunk.load(CLIPSpec("rislab-tiny-RN", str(path), quick_gelu=True))
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"clip\.pt: not a checkpoint that can be read"):
        trunk.load(CLIPSpec("rislab-tiny-RN", str(path)))


def test_unavailable_weights_say_where_to_put_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise RuntimeError("Failed to download weights for tag 'openai': no network\nand a second line")

    monkeypatch.setattr(open_clip, "create_model", offline)
    with pytest.raises(
        ConfigError,
        match=r"timm/.* of the Hugging Face hub, kept in /.*give its file, clip\.pretrained.* clip\.quick_gelu: true",
    ) as said:
        trunk.load(CLIPSpec("RN50", "openai"))
    assert "\n" not in str(said.value)
    with pytest.raises(ConfigError, match="neither a file nor one of open_clip's tags for RN50"):
        trunk.load(CLIPSpec("RN50", "openay"))
    with pytest.raises(ConfigError, match="another text tower"):
        trunk.load(CLIPSpec("roberta-ViT-B-32"))
