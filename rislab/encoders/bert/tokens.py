"""BERT's WordPiece tokenizer, by the library `tokenizers`, from a list of word pieces."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rislab.encoders.text import TextTokenizer
from rislab.errors import DataError
from rislab.paths import contents

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LONG_WORD = 100
"""Characters of a word above which it is one unknown token, as in the official code."""
LONG_TEXT = 20_000
"""Characters of a text that are read."""


class WordPiece(TextTokenizer):
    """Ids ``[CLS] pieces [SEP]`` of lower-cased text without accents.

    Args:
        vocabulary: Word pieces in the order of their ids; `##` begins one that continues a word. See `read_vocabulary`.
        keeps_end: Whether a text that is cut ends with [SEP]; LAVT and DMMI cut it off.
    """

    def __init__(self, vocabulary: list[str], keeps_end: bool = False) -> None:
        # Heavy; `rislab --help` does without it.
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

        ids = {piece: number for number, piece in enumerate(vocabulary)}
        self.keeps_end = keeps_end
        self.pad_id, self.unknown_id, self.cls_id, self.sep_id, self.mask_id = (ids[name] for name in SPECIAL)
        model = models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=LONG_WORD)
        self._tokenizer = Tokenizer(model)
        self._tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._tokenizer.add_special_tokens(list(SPECIAL))  # in a text, too, as in transformers
        self._known: dict[str, tuple[NDArray[np.int32], NDArray[np.int32]]] = {}

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def _encoded(self, text: str) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        if text not in self._known:
            found = self._tokenizer.encode(text[:LONG_TEXT], add_special_tokens=False)
            ids = np.array([self.cls_id, *found.ids, self.sep_id], np.int32)
            self._known[text] = ids, np.array([(0, 0), *found.offsets, (0, 0)], np.int32)
        return self._known[text]

    def ids(self, text: str) -> NDArray[np.int32]:
        """See `TextTokenizer.ids`; of a text with more than `LONG_TEXT` characters, the beginning."""
        return self._encoded(text)[0]

    def spans(self, text: str) -> NDArray[np.int32]:
        """See `TextTokenizer.spans`."""
        return self._encoded(text)[1]

    def cut(self, rows: NDArray[np.int32], length: int) -> NDArray[np.int32]:
        """The first ones; the last one is [SEP] where that is kept."""
        return np.concatenate([rows[: length - 1], rows[-1:]]) if self.keeps_end else rows[:length]


def read_vocabulary(path: Path) -> list[str]:
    """Word pieces of a `vocab.txt`, one a line.

    Raises:
        DataError: No such file, no UTF-8 text, a piece twice, or one of `SPECIAL` missing.
    """
    try:
        lines = contents(path).decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: no list of word pieces ({error.reason} at byte {error.start})") from error
    pieces = [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
    first: dict[str, int] = {}
    for number, piece in enumerate(pieces, 1):
        if piece in first:
            raise DataError(f"{path}:{number}: {piece!r} is also on line {first[piece]}")
        first[piece] = number
    missing = [name for name in SPECIAL if name not in first]
    if missing:
        raise DataError(f"{path}: no list of BERT's word pieces, {missing[0]} is missing")
    if first["[PAD]"] != 1:
        raise DataError(f"{path}:{first['[PAD]']}: [PAD] must be on line 1")
    return pieces
