"""DMMI's two auxiliary losses (section 3.3 and 3.4; official `train.py`). A zero target has no term of its own in either."""

import torch
import torch.nn.functional as F
from torch import Tensor


def recovery(text: Tensor, recovered: Tensor, present: Tensor, indicator: Tensor) -> Tensor:
    """1 - mean over sentences of f_b times the mean cosine of their words (L_sim).

    The paper has f (1 - cos): the same gradient, and a value that is lower by the share of zero targets.

    Args:
        text: The intact words, [N, L, D].
        recovered: Those that come out of the erased sentence, [N, L, D].
        present: float [N, L], 0 for padding; [CLS] and [SEP] count.
        indicator: float [N], f_b, 0 for a zero target.
    """
    cosines = F.cosine_similarity(text.float(), recovered.float(), dim=-1, eps=1e-6)
    each = (cosines * present).sum(1) / present.sum(1)
    return 1 - (indicator * each).mean()


def pixel_sentence_contrast(pixels: Tensor, sentences: Tensor, indicator: Tensor, temperature: float) -> Tensor:
    """Cross-entropy from pixels to sentences plus that from sentences to pixels, over the batch of one process (L_con).

    Args:
        pixels: One vector a query, [N, D]; directions are compared.
        sentences: [N, D].
        indicator: float [N], 0 for a zero target: it stays a negative of the others.
        temperature: Divides the cosines.
    """
    logits = F.normalize(pixels.float(), dim=-1) @ F.normalize(sentences.float(), dim=-1).T / temperature
    own = torch.arange(len(logits), device=logits.device)
    ways = (F.cross_entropy(each, own, reduction="none") for each in (logits, logits.T))
    return torch.stack([(indicator * way).mean() for way in ways]).sum()
