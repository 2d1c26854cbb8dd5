"""Official weights of all five networks in one file, and official reference embeddings.

The release has no such file: its networks come from three places (OpenAI's two CLIPs, DeiT or DINO), each under its own names. In
one file they stand behind a prefix: `retrieval_clip.`, `dense_clip.` (OpenAI's names) and `encoder.` (timm's names).
"""

from pathlib import Path

import torch
from torch import Tensor

from rislab.errors import about
from rislab.nn.renaming import renamed
from rislab.nn.weight_files import read_weights

NAMES = (
    # ours                         theirs
    ("model.retrieval.", "retrieval_clip.visual."),
    ("retrieval_prompts.clip.", "retrieval_clip."),
    ("model.dense.visual.", "dense_clip.visual."),
    ("prompts.clip.", "dense_clip."),
    ("model.encoder.vit.", "encoder."),
)


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the five networks under the names of a ReCoTask. Raises DataError on keys that are none of theirs."""
    return renamed(state, NAMES, back=True)


def to_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse. Raises DataError on keys that are none of ours."""
    return renamed(state, NAMES)


def load_official(path: Path) -> dict[str, Tensor]:
    """Weights of a file; counters of batch norms, which nothing reads here, are 0 where it has none.

    Raises DataError, naming the file: see `read_weights`; leftovers.
    """
    with about(path):
        ours = from_official(read_weights(path))
    means = [key for key in ours if key.endswith(".running_mean")]
    return {key.replace("running_mean", "num_batches_tracked"): torch.tensor(0) for key in means} | ours
