"""BERT. Devlin et al., NAACL 2019, arXiv 1810.04805. Parameter names are those of transformers' BertModel.

Only the encoder: no heads of the two pretraining tasks. Parity: `bert_last_hidden` of every case of `lavt` and `dmmi`.
"""

from collections.abc import Iterable
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rislab.encoders.bert.tokens import WordPiece
from rislab.encoders.text import TextEncoder

EPS = 1e-12
"""Of the LayerNorms."""
STD = 0.02
"""Of random weights."""


class Sizes(TypedDict, total=False):
    """Arguments of `BERT` that decide about the shapes of its parameters."""

    width: int
    layers: int
    heads: int
    hidden: int
    positions: int


class BERT(TextEncoder):
    """Words are the last hidden states; the sentence is the [CLS] token's, through the pooler where there is one.

    Defaults are those of BERT-base uncased.

    Args:
        tokenizer: See `TextEncoder`.
        max_tokens: Tokens of a sentence, [CLS] and [SEP] included; at most `positions`.
        vocab_size: Word pieces.
        width: Channels.
        layers: Transformer layers.
        heads: Of the attention; divides the width.
        hidden: Width of the feed-forward parts.
        positions: Rows of the position table.
        token_types: Rows of the table of sentence A and B; all tokens are of sentence A.
        dropout: On embeddings and on the output of every part, in training.
        attention_dropout: On attention weights, in training.
        pooler: Whether there is a pooler, tanh of a linear layer.
    """

    def __init__(
        self,
        tokenizer: WordPiece | None,
        max_tokens: int = 20,
        vocab_size: int = 30522,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        hidden: int = 3072,
        positions: int = 512,
        token_types: int = 2,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        pooler: bool = False,
    ) -> None:
        super().__init__(tokenizer, max_tokens)
        self.embeddings = Embeddings(vocab_size, width, positions, token_types, dropout)
        self.encoder = Encoder(Layer(width, heads, hidden, dropout, attention_dropout) for _ in range(layers))
        self.pooler = Pooler(width) if pooler else None
        self.apply(_initialise)

    @property
    def width(self) -> int:
        return self.embeddings.word_embeddings.embedding_dim

    @property
    def sentence_width(self) -> int:
        return self.width

    def forward(self, ids: Tensor, padding: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `TextEncoder.forward`. Without `padding`, id 0 is padding; an erased word also has id 0 and is none."""
        hidden = ids == 0 if padding is None else padding
        x = self.embeddings(ids)  # [N, L, C]
        mask = torch.zeros_like(hidden, dtype=x.dtype).masked_fill(hidden, torch.finfo(x.dtype).min)
        x = self.encoder(x, mask[:, None, None])
        return x, x[:, 0] if self.pooler is None else self.pooler(x)


class Embeddings(nn.Module):
    """Sum of word, position and sentence embeddings, normalised."""

    def __init__(self, vocab_size: int, width: int, positions: int, token_types: int, dropout: float) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab_size, width, padding_idx=0)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(token_types, width)
        self.LayerNorm = nn.LayerNorm(width, EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids [N, L] -> [N, L, C]."""
        x = self.word_embeddings(ids) + self.token_type_embeddings.weight[0]
        return self.dropout(self.LayerNorm(x + self.position_embeddings.weight[: ids.shape[1]]))


class Encoder(nn.Module):
    """The layers, one after the other."""

    def __init__(self, layers: Iterable["Layer"]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layers)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x, mask)
        return x


class Layer(nn.Module):
    """Attention and a feed-forward part, each followed by its residual and LayerNorm (post-norm)."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout, attention_dropout)
        self.intermediate = Intermediate(width, hidden)
        self.output = Output(hidden, width, dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [N, L, C]; mask [N, 1, 1, L] is added to the attention logits."""
        x = self.attention(x, mask)
        return self.output(self.intermediate(x), x)


class Intermediate(nn.Module):
    """Linear layer and exact GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class Attention(nn.Module):
    """Multi-head self-attention with its residual."""

    def __init__(self, width: int, heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.self = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        self.output = Output(width, width, dropout)
        self.heads = heads
        self.attention_dropout = attention_dropout

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            self.self[name](x).unflatten(2, (self.heads, -1)).transpose(1, 2) for name in ("query", "key", "value")
        )
        rate = self.attention_dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate)
        return self.output(found.transpose(1, 2).flatten(2), x)


class Output(nn.Module):
    """Linear layer, dropout, residual, LayerNorm."""

    def __init__(self, channels_in: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(channels_in, width)
        self.LayerNorm = nn.LayerNorm(width, EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class Pooler(nn.Module):
    """tanh of a linear layer on the [CLS] token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.dense(x[:, 0]))


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    """As BERT starts: weights from N(0, 0.02), biases and the padding's row 0."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        module.weight.normal_(std=STD)
    if isinstance(module, nn.Linear):
        module.bias.zero_()
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        module.weight[module.padding_idx].zero_()
