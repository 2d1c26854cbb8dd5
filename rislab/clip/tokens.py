"""Token ids of sentences, each encoded once."""

from collections.abc import Mapping, Sequence

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch import Tensor


class Tokenizer:
    """CLIP's byte-pair encoding, with a memory: sentences come back every epoch.

    name: of the open_clip model whose tokenizer it is.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._tokenizer = open_clip.get_tokenizer(name)
        self._known: dict[str, NDArray[np.int32]] = {}

    @property
    def kind(self) -> str:
        """What tells tokenizers apart, also between models that share one."""
        return f"{type(self._tokenizer).__name__}-{self._tokenizer.vocab_size}"

    def ids(self, text: str) -> NDArray[np.int32]:
        """All token ids of a sentence, start and end included."""
        if text not in self._known:
            start, end = self._tokenizer.sot_token_id, self._tokenizer.eot_token_id
            self._known[text] = np.array([start, *self._tokenizer.encode(text), end], np.int32)
        return self._known[text]

    def take(self, kind: str, ids: Mapping[str, NDArray[np.int32]]) -> None:
        """Remember what a tokenizer of this kind has made; ids of another kind are left alone."""
        if kind == self.kind:
            self._known |= ids

    def __call__(self, texts: Sequence[str], context_length: int) -> Tensor:
        """int64 [N, context_length], zeros behind the end; what is cut ends with the end token."""
        out = np.zeros((len(texts), context_length), np.int64)
        for row, text in zip(out, texts, strict=True):
            ids = self.ids(text)
            row[: len(ids)] = ids[:context_length]
            if len(ids) > context_length:
                row[-1] = ids[-1]
        return torch.from_numpy(out)
