"""A Swin within official checkpoints of LAVT and DMMI: the same names, and buffers that ours makes anew."""

from collections.abc import Mapping

from torch import Tensor

from rislab.encoders.swin.model import relative_position_index

TABLE = "relative_position_bias_table"
INDEX = "relative_position_index"


def without_buffers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the indices into the bias tables and the masks of shifted windows."""
    return {key: value for key, value in state.items() if not key.endswith((f"attn.{INDEX}", "attn_mask"))}


def with_buffers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse: an index [N, N] for each table [(2 w - 1) ** 2, heads], N the square of w."""
    indices = {}
    for key, table in state.items():
        if key.endswith(f"attn.{TABLE}"):
            window = (round(len(table) ** 0.5) + 1) // 2
            index = relative_position_index(window).view(window**2, window**2)
            indices[key.removesuffix(TABLE) + INDEX] = index
    return {**state, **indices}
