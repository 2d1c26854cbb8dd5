"""Which phrase of a sentence is erased: nouns by the tagger, by characters, drawn from the key alone."""

from collections import Counter

import numpy as np
import pytest

from rislab.data.erasing import PhraseToErase, phrases, word_spans
from rislab.data.nouns import words
from rislab.data.transforms import Sample
from rislab.errors import ConfigError

TEXT = "The man's umbrella, left of a tennis racket!"


def cut(text: str, spans: tuple[tuple[int, int] | None, ...] | tuple[tuple[int, int], ...]) -> list[str]:
    return [text[span[0] : span[1]] for span in spans if span is not None]


def sample(*texts: str) -> Sample:
    return Sample(np.zeros((4, 4, 3), np.uint8), np.zeros((len(texts), 4, 4), np.uint8), texts)


def test_words_keep_their_characters() -> None:
    for text in (TEXT, "İstanbul DOG", "", "?!", "ünïcödé dog"):
        assert [part.lower() for part in cut(text, tuple(word_spans(text)))] == (
            words(text) if "İ" not in text else ["stanbul", "dog"]
        )


def test_consecutive_nouns_are_one_phrase() -> None:
    assert cut(TEXT, phrases(TEXT, "pattern", 19)) == ["man's umbrella", "tennis racket"]
    assert cut(TEXT, phrases(TEXT, "pattern", 7)) == ["man's umbrella", "tennis"], "what is cut off is no candidate"
    assert phrases("left one behind", "pattern", 0) == phrases("", "pattern", 19) == ()


def test_the_choice_is_a_function_of_key_and_sentence() -> None:
    often, once = (PhraseToErase("noun_phrase", every, "pattern", 19) for every in (True, False))
    epochs = [often(sample(TEXT), (3, epoch, 7)).noun_spans for epoch in range(60)]
    assert Counter(cut(TEXT, spans)[0] for spans in epochs).keys() == {"man's umbrella", "tennis racket"}
    assert epochs == [often(sample(TEXT), (3, epoch, 7)).noun_spans for epoch in range(60)]
    assert len({once(sample(TEXT), (3, epoch, 7)).noun_spans for epoch in range(20)}) == 1
    assert len({once(sample(TEXT), (seed, 0, 7)).noun_spans for seed in range(20)}) == 2
    assert often(sample("red", TEXT), (3, 0, 7)).noun_spans == (None, epochs[0][0])


def test_a_random_word_may_be_any() -> None:
    transform = PhraseToErase("random_word", True, "pattern", 19)
    drawn = {cut(TEXT, transform(sample(TEXT), (0, epoch, 1)).noun_spans)[0] for epoch in range(200)}
    assert drawn == {TEXT[start:stop] for start, stop in word_spans(TEXT)}
    assert transform(sample(""), (0, 0, 1)).noun_spans == (None,)


def test_a_tagger_without_its_data_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rislab.data.nouns._nltk", lambda: None)
    with pytest.raises(ConfigError, match="tagger nltk: the data of NLTK's perceptron tagger is not installed"):
        phrases("some dog in a park", "nltk", 19)
