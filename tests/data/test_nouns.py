"""Nouns of telegraphic sentences, by the tagger that works without downloads."""

from pathlib import Path

import pytest

from rislab.data import nouns
from rislab.data.refer import Refer
from tests.data.small import SmallSet

SENTENCES = {
    "woman in red shirt": "woman shirt",
    "left bear": "bear",
    "man on the far right": "man",
    "the small red circle left of the cross": "circle cross",
    "two striped squares above the triangle": "squares triangle",
    "a brown couch next to the window": "couch window",
    "second pizza from the top": "pizza",
    "elephant in front": "elephant",
    "boy holding an umbrella": "boy umbrella",
    "orange bowl": "bowl",
    "sheep at the back": "sheep",
    "white car behind the bus": "car bus",
    "giraffe with its head down": "giraffe head",
    "kid in blue jacket": "kid jacket",
    "girl eating a sandwich": "girl sandwich",
    "black and white cow": "cow",
    "glass of wine": "glass wine",
    "the man's hat": "man's hat",
    "empty chair": "chair",
    "dog lying on the bed": "dog bed",
}


@pytest.fixture(autouse=True)
def _without_nltk_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nouns, "_nltk", lambda: None)
    nouns.backend.cache_clear()


def test_most_decisions_are_right() -> None:
    right = total = 0
    for text, wanted in SENTENCES.items():
        found = nouns.words(text)
        chosen = {found[at] for at in nouns.nouns(text)}
        right += sum((word in chosen) == (word in wanted.split()) for word in found)
        total += len(found)
    assert right / total > 0.92


def test_words_of_the_domain_are_put_right() -> None:
    assert nouns.nouns("left bear right bears") == (1, 3)
    assert nouns.nouns("") == nouns.nouns("?!") == ()
    assert nouns.words("The man's T-shirt, 2nd!") == ["the", "man's", "t-shirt", "2nd"]


def test_tags_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISLAB_CACHE", str(tmp_path / "cache"))
    refer = Refer(SmallSet({"train": 3}).write(tmp_path), "refcoco", "unc")
    found = nouns.nouns_of(refer.references, "sent")
    assert found[0] == (0,)
    assert len(found) == sum(len(r.expressions) for r in refer.references)
    monkeypatch.setattr(nouns, "nouns", None)
    assert nouns.nouns_of(refer.references, "sent") == found
    with pytest.raises(TypeError):
        nouns.nouns_of(refer.references[:1], "sent")  # other sentences are tagged anew
    assert nouns.backend().startswith("pattern-")
