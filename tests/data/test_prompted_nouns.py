"""Nouns of captions in prompts, and their way through a transform into batches."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rislab.data import nouns
from rislab.data.geometry import Stretch
from rislab.data.pair_batches import SPARE, Pairs
from rislab.data.prompted_nouns import PromptedNouns, candidates, prompted
from rislab.data.shards import Shards
from rislab.errors import ConfigError
from tests.data.test_pairs import plain

TEMPLATES = ("a photo of a {}.", "itap of the {}.")


@pytest.mark.parametrize(
    ("text", "words", "phrases"),
    [
        ("A man riding a wave on a surfboard", "man riding wave surfboard", "man|wave|surfboard"),
        ("small striped red circle left of plain blue shape", "circle shape", "small striped red circle|plain blue shape"),
        ("very quickly", "", ""),
        ("", "", ""),
    ],
)  # fmt: skip
def test_candidates_are_nouns_and_verbs_or_noun_phrases(text: str, words: str, phrases: str) -> None:
    assert " ".join(candidates(text)) == words
    assert "|".join(candidates(text, word_type="noun_phrase")) == phrases


def test_prompts_are_drawn_without_replacement_and_filled_up_with_the_caption() -> None:
    caption = "two dogs and a cat"
    seen = set()
    for seed in range(40):
        found = prompted(caption, 3, TEMPLATES, np.random.default_rng(seed))
        assert found[2] == caption, "two words, three texts"
        assert {text.split(" of ")[1].split()[1].strip(".") for text in found[:2]} == {"dogs", "cat"}
        seen |= set(found)
    assert seen == {form.format(word) for form in TEMPLATES for word in ("dogs", "cat")} | {caption}
    assert len(prompted(caption, 1, TEMPLATES, np.random.default_rng(0))) == 1


def test_nltk_without_its_data_is_an_error_that_names_the_other_tagger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nouns, "_nltk", lambda: None)
    with pytest.raises(ConfigError, match=r"nltk.downloader .*; pattern needs none"):
        candidates("a caption that no other test has", "nltk")


def test_batches_hold_the_prompts_of_each_caption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISLAB_CACHE", str(tmp_path / "cache"))
    shards, frame = Shards(plain(tmp_path, shards=1)), Stretch(16)
    transform = PromptedNouns((16, 16), 2, TEMPLATES, "pattern", "noun")
    row = np.array([0, 4, 1, 3, 5, 6][: 1 + 2 + SPARE])
    batch = Pairs(shards, 2, frame, transform, seed=0)[row]
    assert batch.texts == ["text 4", "text 1"]
    assert batch.nouns is not None
    for text, prompts in zip(batch.texts, batch.nouns, strict=True):
        assert prompts[0] in {form.format("text") for form in TEMPLATES}
        assert prompts[1] == text
    assert Pairs(shards, 2, frame, transform, seed=0)[row].nouns == batch.nouns, "drawn from the key alone"
    bare = Pairs(shards, 2, frame, None, seed=0)[row]
    assert bare.nouns is None
    assert torch.equal(bare.images, batch.images)
