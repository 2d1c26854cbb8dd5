"""The interface of text encoders: what a token stands for, and one pass for words and sentence."""

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rislab.encoders.bert.load import BERTSpec
from rislab.encoders.bert.load import load as load_bert
from rislab.encoders.clip.text import CLIPTextEncoder
from rislab.encoders.clip.tokens import LONG_TEXT, Tokenizer
from rislab.encoders.clip.trunk import CLIPSpec, load
from rislab.encoders.text import TextEncoder, word_spans
from rislab.errors import DataError

CLIP = Tokenizer("RN50")
OPEN_CLIP = open_clip.get_tokenizer("RN50")


def clip() -> TextEncoder:
    return CLIPTextEncoder(load(CLIPSpec("rislab-tiny-ViT")), Tokenizer("rislab-tiny-ViT"), 12).eval()


def bert() -> TextEncoder:
    return load_bert(BERTSpec("rislab-tiny-BERT"), max_tokens=12, keeps_end=True).eval()


@pytest.mark.parametrize("build", [clip, bert])
def test_words_and_sentence_are_one_pass_and_padding_changes_nothing(build: object) -> None:
    torch.manual_seed(0)
    encoder = build()  # type: ignore[operator]
    texts = ["red cross", "the small striped circle left of the very large blue triangle", "", "a"]
    tokens = encoder.tokens(texts)
    assert tokens.ids.shape == tokens.padding.shape == (4, 12)
    with torch.inference_mode():
        words, sentence = encoder(tokens.ids, tokens.padding)
        assert torch.equal(words, encoder.words(tokens))
        assert torch.equal(sentence, encoder.sentence(tokens))
        assert words.shape == (4, 12, encoder.width)
        assert sentence.shape == (4, encoder.sentence_width)
        short = encoder.tokenizer.tokens(texts[:1], 5)
        torch.testing.assert_close(encoder.words(short)[0, :4], words[0, :4], atol=1e-5, rtol=0)
        torch.testing.assert_close(encoder.sentence(short)[0], sentence[0], atol=1e-5, rtol=0)
    cut = tokens.ids[1]
    assert not tokens.padding[1].any()
    assert cut[-1] == encoder.tokenizer.ids(texts[1])[-1], "a cut sentence keeps its end"
    assert tokens.offsets[1, -1].tolist() == [0, 0]


def test_a_word_or_a_phrase_is_found_by_its_characters() -> None:
    text = "The  unaffable  man's café, left-most!"
    for tokenizer in (CLIP, bert().tokenizer):
        assert tokenizer is not None
        tokens = tokenizer.tokens([text], 40)
        for start, stop in word_spans(text):
            at = tokens.covering([[(start, stop)]])[0]
            pieces = tokens.offsets[0][at]
            assert (pieces[0, 0], pieces[-1, 1]) == (start, stop)
            assert torch.equal(pieces[1:, 0], pieces[:-1, 1]), "no gap between the pieces of a word"
        phrase = tokens.covering([[(5, 21)]])
        assert phrase.sum() == tokens.covering([[(5, 14)]]).sum() + tokens.covering([[(16, 21)]]).sum()
        erased = tokens.replaced(phrase, 0)
        assert erased.ids[phrase].eq(0).all()
        assert torch.equal(erased.ids[~phrase], tokens.ids[~phrase])
        assert torch.equal(erased.padding, tokens.padding), "an erased word is not padding"
        assert not tokens.covering([[]]).any()


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.text(max_size=80),
        st.text(alphabet="abcé漢'&;<>!. \n", max_size=120),
        st.lists(
            st.sampled_from(["red", "cup's", "THE", "&lt;", "&amp;amp;", "naïve", "Ã©", "İ", "Σ"]), max_size=30
        ).map(" ".join),
    )
)
def test_every_clip_token_has_its_place_in_any_text(text: str) -> None:
    ids, spans = CLIP.ids(text), CLIP.spans(text)
    assert spans.shape == (len(ids), 2)
    assert ((spans >= 0) & (spans <= len(text))).all()
    assert (spans[:, 0] <= spans[:, 1]).all()
    starts = spans[1:-1, 0]
    assert (starts[1:] >= starts[:-1]).all(), "tokens lie in the order of the text"
    if text.isascii() and "&" not in text and text.isprintable():
        decoded = [OPEN_CLIP.decode([int(i)]).strip() for i in ids[1:-1]]
        assert decoded == [text[start:stop].lower() for start, stop in spans[1:-1]]


def test_cleaning_moves_the_characters_of_a_token() -> None:
    text = "a &lt;b&gt;   Ã©tÃ© cup"
    where = {
        OPEN_CLIP.decode([int(i)]).strip(): text[a:b]
        for i, (a, b) in zip(CLIP.ids(text), CLIP.spans(text), strict=True)
    }
    assert where["cup"] == "cup"
    assert where["<"] == "&lt;"
    assert where["b"] == "b"
    with pytest.raises(DataError, match=f"at most {LONG_TEXT}"):
        CLIP.spans("a" * (LONG_TEXT + 1))
