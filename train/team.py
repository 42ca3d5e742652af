"""The processes that train together, as torchrun starts them, on as many GPUs or nodes; alone, a team of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from edge.errors import UsageError

PATIENCE = timedelta(hours=2)
"""How long the others wait while the first process measures or writes."""


@dataclass(frozen=True, slots=True)
class Team:
    """This process's `rank` among `world` ones, and the device that it works on."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that speaks, measures and writes."""
        return self.rank == 0

    def together(self, network: nn.Module) -> nn.Module:
        """The network, whose gradients become the mean over all processes, and whose weights the first one's."""
        if self.world == 1:
            return network
        if self.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
            return DistributedDataParallel(network, device_ids=[self.device.index])
        return DistributedDataParallel(network)

    def same(self, network: nn.Module) -> None:
        """Give every process the first one's weights, in place."""
        if self.world > 1:
            for value in network.state_dict().values():
                torch.distributed.broadcast(value, 0)

    def apart(self, network: nn.Module) -> AbstractContextManager[None]:
        """Within it, gradients add up in each process without being exchanged."""
        return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()

    def meet(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            torch.distributed.barrier()

    def agreed(self, value: float) -> float:
        """The first process's value, in every process."""
        if self.world == 1:
            return value
        told = torch.tensor(value, dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(told, 0)
        return told.item()

    def heard(self, done: float, stop: bool) -> tuple[float, bool]:
        """How far the first process is, and whether any one has been asked to stop; the same in every process."""
        if self.world == 1:
            return done, stop
        told = torch.tensor([done if self.leads else 0.0, float(stop)], dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
        return float(told[0]), bool(told[1])

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the processes."""
        if self.world > 1:
            value = value.clone()
            torch.distributed.all_reduce(value)
            value = value / self.world
        return value


@contextmanager
def assembled(device: str = "auto") -> Iterator[Team]:
    """The team of torchrun's environment, or a team of one. Raises UsageError for a device that is not there.

    `device` is auto, cpu, cuda or cuda:N; auto takes a GPU where there is one, and each process of a node its own.
    """
    world, rank, local = (
        int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0))
    )
    chosen = _device(device, local, alone=world == 1)
    if world == 1:
        yield Team(chosen)
        return
    try:
        torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"WORLD_SIZE is {world}, and the others cannot be joined ({reason}); start by torchrun") from None
    try:
        yield Team(chosen, rank, world)
    finally:
        torch.distributed.destroy_process_group()


def _device(name: str, local: int, *, alone: bool) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind == "cpu" and not index:
        return torch.device("cpu")
    if kind != "cuda" or not (index == "" or index.isdigit()):
        raise UsageError(f"--device {name}: give auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise UsageError(f"--device {name}: torch sees no GPU here; leave the option out, or install a torch with CUDA")
    number = int(index) if index and alone else local
    if number >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: there are {torch.cuda.device_count()} GPUs; start as many processes a node at most")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)
