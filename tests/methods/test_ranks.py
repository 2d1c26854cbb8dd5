"""Two processes that train a method on different batches have one network."""

import os
from multiprocessing.connection import Connection

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rislab.data.batch import Batch
from rislab.methods.base import TextSegmenter
from rislab.training.graceful_stop import share_buffers
from tests.forks import forking
from tests.methods.tiny import METHODS

LEARNING = sorted(name for name in METHODS if name not in ("clip", "maskclip"))


class Step(nn.Module):
    """A training step as a forward pass, which is what DDP wraps."""

    def __init__(self, method: TextSegmenter) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: Batch) -> Tensor:
        return torch.stack(list(self.method.losses(batch).values())).sum()


def batch(method: TextSegmenter, rank: int) -> Batch:
    """Of another content on every rank, and of another number of queries where the method's ranks may have that."""
    draw = torch.Generator().manual_seed(100 + rank)
    height, width = method.geometry.size
    count = 3 if method.supervision == "texts" else 3 + rank
    pictures = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=draw)
    masks = 255 * torch.randint(0, 2, (count, height, width), dtype=torch.uint8, generator=draw)
    texts = [f"thing {rank} {number}" for number in range(count)]
    ids = list(range(count))
    places = [method.geometry.place(height, width)] * count
    return Batch(pictures, texts, torch.arange(count), masks, None, places, ids, ids, ids, [False] * count)


def train(rank: int, port: int, answers: Connection) -> None:
    """One step of every method; what differs from rank 0 after it, and whether anything has changed, by method."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found = {}
    for name in LEARNING:
        torch.manual_seed(rank)  # not even the start is the same, but for DDP
        method = METHODS[name]().train()
        wrapped = DistributedDataParallel(Step(method))
        before = {key: value.clone() for key, value in method.named_parameters()}
        configured = method.configure_optimizers()
        optimiser = configured["optimizer"] if isinstance(configured, dict) else configured
        wrapped(batch(method, rank)).backward()
        optimiser.step()
        # What a forward pass changes in buffers is rank 0's from the next one on, and from the start of an evaluation.
        share_buffers(method)
        everything = dict(method.named_parameters()) | dict(method.named_buffers())
        others = []
        for key, value in everything.items():
            reference = value.detach().clone()
            dist.broadcast(reference, 0)
            others += [] if torch.equal(reference, value) else [key]
        moved = any(not torch.equal(before[key], value) for key, value in method.named_parameters())
        found[name] = (others, moved)
    answers.send(found)
    dist.destroy_process_group()


def test_ranks_have_one_network_after_a_step_on_different_batches(free_port: int) -> None:
    assert set(LEARNING) == {name for name, make in METHODS.items() if make().is_trained}
    pipes = [forking().Pipe(duplex=False) for _ in range(2)]
    processes = [forking().Process(target=train, args=(rank, free_port, pipes[rank][1])) for rank in range(2)]
    for process in processes:
        process.start()
    for (receiver, _), process in zip(pipes, processes, strict=True):
        if not receiver.poll(120):
            pytest.fail("a rank gives no answer")
        assert receiver.recv() == {name: ([], True) for name in LEARNING}
        process.join(30)
