"""Two processes that train a method on different batches have one network."""

import os
from multiprocessing.connection import Connection

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rislab.ablation import signature
from rislab.data.batch import Images, MaskQueries, members
from rislab.data.synthetic import batch_of
from rislab.methods.base import TextSegmenter
from rislab.training.graceful_stop import share_buffers
from tests.forks import forking
from tests.methods.every import factories

LEARNING = sorted(name for name in signature.methods() if signature.read(signature.methods()[name]).trains_on)


class Step(nn.Module):
    """A training step as a forward pass, which is what DDP wraps."""

    def __init__(self, method: TextSegmenter) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: Images) -> Tensor:
        return torch.stack(list(self.method.losses(batch).values())).sum()


def batch(method: TextSegmenter, rank: int) -> Images:
    """Of another content on every rank, and of another number of queries where the method's ranks may have that."""
    kind, *_ = members(method.trains_on)
    count = 3 + rank if kind is MaskQueries else 3
    return batch_of(kind, method.geometry, images=count, seed=100 + rank)


def train(rank: int, port: int, answers: Connection) -> None:
    """One step of every method; what differs from rank 0 after it, and whether anything has changed, by method."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found = {}
    for name in LEARNING:
        torch.manual_seed(rank)  # not even the start is the same, but for DDP
        method = factories()[name]().train()
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
    assert set(LEARNING) == {name for name, make in factories().items() if make().is_trained}
    pipes = [forking().Pipe(duplex=False) for _ in range(2)]
    processes = [forking().Process(target=train, args=(rank, free_port, pipes[rank][1])) for rank in range(2)]
    for process in processes:
        process.start()
    for (receiver, _), process in zip(pipes, processes, strict=True):
        if not receiver.poll(120):
            pytest.fail("a rank gives no answer")
        assert receiver.recv() == {name: ([], True) for name in LEARNING}
        process.join(30)
