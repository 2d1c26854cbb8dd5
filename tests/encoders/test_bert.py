"""BERT: official hidden states, the tokenizer's official ids, weights by other names, and the tiny one."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rislab.ablation.identity import digest, resolve
from rislab.encoders.bert import tiny
from rislab.encoders.bert.load import BERTSpec, load
from rislab.encoders.bert.model import BERT
from rislab.encoders.bert.names import from_transformers, to_transformers
from rislab.encoders.bert.tiny import Recipe
from rislab.encoders.bert.tokens import WordPiece, read_vocabulary
from rislab.errors import ConfigError, DataError
from tests.parity.cases import ROOT, Case, cases, close

CASES = [case for method in ("lavt", "dmmi") for case in cases(method)]
REAL = Path(os.environ.get("RISLAB_SHARED_DATA", "../shared/data")) / "bert-uncased-vocab" / "vocab.txt"
real_vocabulary = pytest.mark.skipif(not REAL.is_file(), reason="no vocabulary of BERT: set RISLAB_SHARED_DATA")
MISSING = "transformers is not installed"
QUICK = Recipe(scenes=60, steps=20, batch_size=16)
SMALL = {"vocab_size": 211, "width": 32, "layers": 2, "heads": 4, "hidden": 48, "positions": 24}


def official(case: Case) -> BERT:
    """The BERT of a case of LAVT or DMMI, which was saved without a pooler."""
    at = case.about["model"]
    positions = at.get("bert_max_position") or at["bert_positions"]
    sizes = (at["vocab"], at["text_width"], at["bert_layers"], at["bert_heads"], at["bert_intermediate"], positions)
    model = BERT(None, case.about.get("max_tokens", 20), *sizes)
    prefix = "bert_model."
    state = {key.removeprefix(prefix): value for key, value in case.weights.items() if key.startswith(prefix)}
    model.load_state_dict(from_transformers(state, has_pooler=False), strict=True)
    return model.eval()


@pytest.mark.skipif(not CASES, reason=f"no parity cases of lavt or dmmi under {ROOT} (set RISLAB_PARITY)")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.path.name)
def test_official_hidden_states(case: Case) -> None:
    """Also of sentences whose nouns have id 0 and are still attended to, and of those cut at 20 tokens."""
    model, padding = official(case), case["attention_mask"] == 0
    assert not padding.all(1).any()
    with torch.inference_mode():
        words, sentence = model(case["input_ids"], padding)
        close(words, case["eval.bert_last_hidden"], "words", 1e-5)
        assert torch.equal(sentence, words[:, 0])
        if case.about["method"] == "dmmi":
            erased = model(case["input_ids_erased"], padding)[0]
            close(erased, case["eval.bert_last_hidden_erased"], "erased", 1e-5)
        assert torch.equal(model(case["input_ids"])[0], words), "without a mask, id 0 is padding"


def test_dropout_is_on_in_training_alone_and_padding_learns_nothing() -> None:
    torch.manual_seed(0)
    model = BERT(None, **SMALL)
    ids = torch.tensor([[2, 9, 8, 3, 0, 0], [2, 7, 3, 0, 0, 0]])
    assert not torch.equal(model(ids)[0], model(ids)[0])
    model.eval()
    words = model(ids)[0]
    assert torch.equal(words, model(ids)[0])
    other = torch.where(ids == 0, 11, ids)
    torch.testing.assert_close(model(other, ids == 0)[0][0, :4], words[0, :4])
    words[0, :4].sum().backward()
    assert not model.embeddings.word_embeddings.weight.grad[0].any()  # type: ignore[index]


def test_transformers_names_both_ways() -> None:
    torch.manual_seed(0)
    model = BERT(None, pooler=True, **SMALL)
    own = model.state_dict()
    headed = to_transformers(own, "bert.") | {"cls.predictions.bias": torch.zeros(3)}
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for key, value in headed.items()
    }
    for state in (to_transformers(own), headed, old | {"bert.embeddings.position_ids": torch.arange(24)[None]}):
        found = from_transformers(state, has_pooler=True)
        assert found.keys() == own.keys()
        assert all(torch.equal(found[key], value) for key, value in own.items())
        bare = from_transformers(state, has_pooler=False)
        assert bare.keys() == BERT(None, **SMALL).state_dict().keys()
    assert "encoder.layer.1.attention.self.query.weight" in own
    assert "encoder.layer.0.attention.output.LayerNorm.bias" in own


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_transformers_computes_the_same(prefix: str) -> None:
    transformers = pytest.importorskip("transformers", reason=MISSING)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=211,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=24,
    )
    theirs = (transformers.BertForMaskedLM(config) if prefix else transformers.BertModel(config)).eval()
    ours = BERT(None, pooler=not prefix, **SMALL).eval()
    ours.load_state_dict(from_transformers(theirs.state_dict(), has_pooler=not prefix), strict=True)
    ids = torch.randint(1, 211, (3, 12))
    padding = torch.arange(12)[None] >= torch.tensor([[12], [5], [2]])
    encoder = theirs.bert if prefix else theirs
    with torch.inference_mode():
        out = encoder(ids, attention_mask=(~padding).long())
        words, sentence = ours(ids, padding)
        torch.testing.assert_close(words[~padding], out.last_hidden_state[~padding], atol=1e-5, rtol=0)
        if not prefix:
            torch.testing.assert_close(sentence, out.pooler_output, atol=1e-5, rtol=0)


SENTENCES = {
    "a man riding a wave": [101, 1037, 2158, 5559, 1037, 4400, 102],
    "Hello, world!": [101, 7592, 1010, 2088, 999, 102],
    "naïve ÉCLAIR": [101, 15743, 14925, 19771, 2099, 102],
    "the [MASK] is unaffable": [101, 1996, 103, 2003, 14477, 20961, 3468, 102],
    "": [101, 102],
}
"""Ids as the published tokenizer of bert-base-uncased gives them."""


@real_vocabulary
def test_real_word_pieces() -> None:
    pieces = read_vocabulary(REAL)
    tokenizer = WordPiece(pieces)
    assert len(tokenizer) == 30522
    for text, ids in SENTENCES.items():
        assert tokenizer.ids(text).tolist() == ids
    long = "a man riding a wave on top of a surfboard in the middle of the big blue unaffable ocean today"
    cut = tokenizer.tokens([long], 20)
    assert cut.ids[0, 0] == 101
    assert cut.ids[0, -1] != 102, "LAVT and DMMI cut the end token off"
    kept = WordPiece(pieces, keeps_end=True).tokens([long], 20)
    assert kept.ids[0, -1] == 102
    assert torch.equal(kept.ids[0, :-1], cut.ids[0, :-1])


@real_vocabulary
def test_transformers_finds_the_same_word_pieces() -> None:
    transformers = pytest.importorskip("transformers", reason=MISSING)
    ours, theirs = WordPiece(read_vocabulary(REAL)), transformers.BertTokenizer(str(REAL), do_lower_case=True)
    for text in [*SENTENCES, "guy w/ the 2nd-to-last beer's glass (left)", "漢字 kanji", "x" * 120]:
        assert ours.ids(text).tolist() == theirs.encode(text)


def test_a_base_model_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder as transformers lays it out: weights with names of a head, and the vocabulary."""
    small = {name: size for name, size in SMALL.items() if name != "vocab_size"}
    monkeypatch.setattr("rislab.encoders.bert.load.SIZES", {"bert-base-uncased": small})
    sizes = SMALL | {"vocab_size": 30522}
    pieces = [*tiny.vocabulary(), *(f"[unused{n}]" for n in range(30522 - len(tiny.vocabulary())))]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    torch.manual_seed(0)
    state = {key: value.contiguous() for key, value in BERT(None, **sizes).state_dict().items()}
    save_file(to_transformers(state, "bert."), tmp_path / "model.safetensors")
    for given in (tmp_path, tmp_path / "model.safetensors"):
        model = load(BERTSpec("bert-base-uncased", str(given)))
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    random = load(BERTSpec("bert-base-uncased", None, str(tmp_path / "vocab.txt")))
    assert random.tokens(["red"]).ids[0, 1] == pieces.index("red")
    with pytest.raises(DataError, match=r"model\.safetensors: its weights are not this model's; 2 missing: pooler"):
        load(BERTSpec("bert-base-uncased", str(tmp_path)), pooler=True)
    with pytest.raises(ConfigError, match="bert-base-uncased has 24 positions"):
        load(BERTSpec("bert-base-uncased", str(tmp_path)), max_tokens=25)
    (tmp_path / "vocab.txt").write_text("\n".join(pieces[:-1]))
    with pytest.raises(DataError, match=r"vocab\.txt: 30521 word pieces, bert-base-uncased has 30522"):
        load(BERTSpec("bert-base-uncased", str(tmp_path)))
    for content, message in (("red\nred\n", r"vocab\.txt:2: 'red' is also on line 1"), ("red\n", "PAD.* is missing")):
        (tmp_path / "vocab.txt").write_text(content)
        with pytest.raises(DataError, match=message):
            load(BERTSpec("bert-base-uncased", str(tmp_path)))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (BERTSpec("bert-base-uncase"), r"did you mean 'bert-base-uncased'"),
        (BERTSpec("bert-base-uncased", "toy"), "belongs to rislab-tiny-BERT"),
        (BERTSpec("rislab-tiny-BERT", "hub"), "has only toy weights"),
        (BERTSpec("bert-base-uncased", "elsewhere.bin"), "is no file; expected one, a folder, hub, toy or null"),
        (BERTSpec("bert-base-uncased", "hub"), r"give it as bert\.pretrained: /path/to/model\.safetensors"),
        (BERTSpec("bert-base-uncased"), r"give it as bert\.vocabulary: /path/to/vocab\.txt"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(spec: BERTSpec, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object) -> str:
        raise RuntimeError("no network\nand a second line")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(ConfigError, match=message) as said:
        load(spec)
    assert "\n" not in str(said.value)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RISLAB_CACHE", str(tmp_path))
    return tmp_path


def test_the_tiny_one_is_trained_once_and_bit_equal(cache: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    path = tiny.pretrained_path(QUICK)
    assert torch.equal(torch.rand(1), expected), "the caller's randomness was touched"
    first = path.read_bytes()
    path.unlink()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert tiny.pretrained_path(QUICK).read_bytes() == first, "on another number of threads"
    finally:
        torch.set_num_threads(threads)
    assert path.parent == cache / "bert"
    assert tiny.weights_file(QUICK) != tiny.weights_file(Recipe())


def test_the_tiny_one_learns(cache: Path) -> None:
    figures = tiny.masked_accuracy(Recipe(scenes=300, steps=250, batch_size=32))
    assert figures["model"] > 2 * figures["most frequent"], figures


def test_toy_sentences_are_made_of_its_word_pieces() -> None:
    tokenizer = WordPiece(list(tiny.vocabulary()))
    lengths = []
    for text in dict.fromkeys(tiny.sentences(200, seed=5)):
        ids = tokenizer.ids(text)
        assert tokenizer.unknown_id not in ids, text
        lengths.append(len(ids))
    assert max(lengths) <= 20
    assert len(tokenizer.ids("three")) > 3, "some words have several pieces"


def test_the_tiny_ones_version_counts() -> None:
    """A method's BERT is hashed with the version of what makes it."""
    given = {"class_path": "rislab.encoders.bert.load.BERTSpec", "init_args": {"name": "rislab-tiny-BERT"}}
    hashed = resolve(given, hashed=True)
    assert hashed["init_args"]["encoders.bert.tiny.VERSION"] == tiny.VERSION
    assert digest(hashed) != digest(resolve(given | {"init_args": {"name": "bert-base-uncased"}}, hashed=True))


def test_state_is_what_the_spec_says(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "Recipe", lambda: QUICK)
    model = load(BERTSpec("rislab-tiny-BERT", "toy"))
    assert isinstance(model.embeddings.word_embeddings.weight, Tensor)
    assert model.sentence_width == model.width == tiny.SIZES["width"]
    assert BERTSpec("rislab-tiny-BERT", "None") == BERTSpec("rislab-tiny-BERT")
