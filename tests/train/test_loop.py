"""The training loop: it goes on exactly after any interruption, adds up parts, keeps the best, and agrees across processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from collections.abc import Iterator  # noqa: E402

from torch import Tensor, nn  # noqa: E402

from edge.errors import EdgeError, InputError  # noqa: E402
from train.checkpoint import Checkpoint, write_whole  # noqa: E402
from train.loop import Row, Trained, train  # noqa: E402
from train.pictures import Batch  # noqa: E402
from train.recipe import Recipe  # noqa: E402
from train.team import Team  # noqa: E402

ALONE = Team(torch.device("cpu"))
RECIPE = Recipe(epochs=4, batch=12, rate=2e-2, average=0.8, seed=3)
STEPS = 5
KILLS = 8


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing by more, and lose much where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(dropout: float = 0.2) -> nn.Module:
    """Small, and with all that an interruption could disturb: batch norm, dropout, an optimizer with momenta."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(4 * 36, 3)
        )


@dataclass(eq=False)
class Stripes:
    """Pictures 8x8 whose brightest channel is the class, made of (epoch, place) alone; `metrics` are what measure says."""

    network: nn.Module
    recipe: Recipe
    metrics: tuple[float, ...] = ()
    measured: int = 0
    slow_s: float = 0.0

    def batches_an_epoch(self) -> int:
        return STEPS

    def batches(self, epoch: int, first: int, team: Team) -> Iterator[tuple[int, Batch]]:
        for place in range(first, STEPS):
            time.sleep(self.slow_s)
            random = np.random.default_rng((epoch, place))
            class_ids = random.integers(0, 3, self.recipe.batch)
            images = random.normal(0, 1, (self.recipe.batch, 3, 8, 8)).astype(np.float32)
            images[np.arange(len(images)), class_ids] += 1
            mine = slice(team.rank, None, team.world)
            yield place, Batch(torch.from_numpy(images[mine]), torch.from_numpy(class_ids[mine]))

    def loss(self, network: nn.Module, batch: Batch, random: np.random.Generator) -> Tensor:
        weight = float(random.uniform(0.9, 1.1)) if self.recipe.mixup else 1.0
        return weight * nn.functional.cross_entropy(network(batch.images), batch.class_ids)

    def plain(self) -> Iterator[Tensor]:
        for _, batch in self.batches(99, 0, ALONE):
            yield batch.images

    def measure(self, network: nn.Module) -> float | None:
        self.measured += 1
        if self.metrics:
            return self.metrics[(self.measured - 1) % len(self.metrics)]
        with torch.no_grad():
            batches = [batch for _, batch in self.batches(98, 0, ALONE)]
            right = [(network(batch.images).argmax(1) == batch.class_ids).float().mean() for batch in batches]
        return float(torch.stack(right).mean())


def weights(trained: Trained | nn.Module) -> dict[str, Tensor]:
    return (trained.network if isinstance(trained, Trained) else trained).state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 0.0) -> bool:
    return all(torch.allclose(one[name].double(), other[name].double(), atol=tolerance, rtol=0) for name in one)


def test_it_learns_and_tells_every_epoch() -> None:
    rows: list[Row] = []
    trained = train(Stripes(network(), RECIPE), RECIPE, team=ALONE, heard=rows.append)
    assert [row.epoch for row in rows] == [1, 2, 3, 4]
    assert rows == trained.history
    assert [row.step for row in rows] == [5, 10, 15, 20]
    assert rows[-1].loss < 0.6 * rows[0].loss
    assert rows[-1].metric is not None
    assert rows[-1].metric > 0.9


@pytest.mark.parametrize("steps", [1, 4, 5, 7, 19])
@pytest.mark.parametrize("recipe", [RECIPE, replace(RECIPE, mixup=0.2, optimizer="sgd", accumulate=3, clip=1.0)])
def test_a_run_that_was_stopped_anywhere_goes_on_exactly(tmp_path: Path, steps: int, recipe: Recipe) -> None:
    whole = train(Stripes(network(), recipe), recipe, team=ALONE)
    looks = iter([*[False] * steps, True])
    first = train(
        Stripes(network(), recipe), recipe, team=ALONE, keeper=Checkpoint(tmp_path / "c.pt"), stop=lambda: next(looks, True)
    )
    assert first.stopped
    assert not same(weights(first), weights(whole))
    rest = train(Stripes(network(), recipe), recipe, team=ALONE, keeper=Checkpoint(tmp_path / "c.pt"))
    assert not rest.stopped
    assert same(weights(rest), weights(whole))
    assert [(row.epoch, row.loss, row.metric) for row in rest.history] == [
        (row.epoch, row.loss, row.metric) for row in whole.history
    ]


def test_parts_add_up_to_the_whole_batch() -> None:
    """Without batch norm and dropout, whose parts see less, and up to the order of additions."""
    linear = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    recipe = replace(RECIPE, optimizer="sgd", epochs=1)
    one, many = (train(Stripes(linear, recipe), replace(recipe, accumulate=parts), team=ALONE) for parts in (1, 5))
    assert same(weights(one), weights(many), 1e-6)
    assert many.history[0].loss == pytest.approx(one.history[0].loss, rel=1e-5)


def test_statistics_stay_where_there_is_nothing_to_measure_them_on() -> None:
    class Keeping(Stripes):
        def plain(self) -> None:  # type: ignore[override]
            return None

    recipe = replace(RECIPE, epochs=1)
    kept, measured = (weights(train(kind(network(), recipe), recipe, team=ALONE)) for kind in (Keeping, Stripes))
    changed = {name for name in kept if not torch.equal(kept[name], measured[name])}
    assert changed == {"1.running_mean", "1.running_var"}


@pytest.mark.parametrize(("share", "learning"), [(0.0, {"0", "1", "5"}), (0.5, {"5"}), (0.2, {"0", "1", "5"})])
def test_frozen_layers_keep_their_weights_and_cost_no_gradient(share: float, learning: set[str]) -> None:
    recipe = replace(RECIPE, epochs=1, freeze=share, batch_norm="freeze")
    job = Stripes(network(), recipe)
    before, after = weights(job.network), weights(train(job, recipe, team=ALONE))
    assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == learning


def test_patience_ends_the_run_and_gives_the_best_epoch() -> None:
    recipe = replace(RECIPE, epochs=50, patience=3, batch_norm="freeze")
    job = Stripes(network(), recipe, metrics=(0.5, 0.9, 0.7, 0.9, 0.8, 0.99))
    trained = train(job, recipe, team=ALONE)
    assert [row.metric for row in trained.history] == [0.5, 0.9, 0.7, 0.9, 0.8]
    wanted: list[dict[str, Tensor]] = []

    class Noting(Stripes):
        def measure(self, network: nn.Module) -> float | None:
            wanted.append({name: value.clone() for name, value in network.state_dict().items()})
            return super().measure(network)

    train(Noting(network(), recipe, metrics=job.metrics), recipe, team=ALONE)
    assert same(weights(trained), wanted[1])
    assert not same(weights(trained), wanted[4])


def test_a_run_that_had_lost_patience_does_not_go_on(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=50, patience=2, batch_norm="freeze")
    keeper = Checkpoint(tmp_path / "c.pt")
    ended = train(Stripes(network(), recipe, metrics=(0.9, 0.5, 0.4)), recipe, team=ALONE, keeper=keeper)
    again = train(Stripes(network(), recipe, metrics=(0.95, 0.96, 0.97)), recipe, team=ALONE, keeper=keeper)
    assert [row.metric for row in again.history] == [0.9, 0.5, 0.4]
    assert same(weights(again), weights(ended))


def test_an_epoch_whose_last_batch_cannot_be_read_is_measured_too() -> None:
    class Lacking(Stripes):
        def batches(self, epoch: int, first: int, team: Team) -> Iterator[tuple[int, Batch]]:
            return (pair for pair in super().batches(epoch, first, team) if pair[0] != (STEPS - 1 if epoch in (0, 3) else 1))

    trained = train(Lacking(network(), RECIPE), RECIPE, team=ALONE)
    assert [(row.epoch, row.step) for row in trained.history] == [(1, 5), (2, 10), (3, 15), (4, 20)]
    assert all(row.metric is not None for row in trained.history)


def test_a_loss_that_explodes_names_the_step() -> None:
    recipe = replace(RECIPE, rate=1e30, optimizer="sgd", warmup=0)
    with pytest.raises(EdgeError, match=r"the loss became (nan|inf) at step \d+ of 20; lower the learning rate"):
        train(Stripes(network(), recipe), recipe, team=ALONE)


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", "another network", "cut"])
def test_a_damaged_checkpoint_is_one_line(tmp_path: Path, damage: str | bytes) -> None:
    path = tmp_path / "checkpoint.pt"
    made = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)) if damage == "another network" else network()
    train(Stripes(made, RECIPE), replace(RECIPE, epochs=1), team=ALONE, keeper=Checkpoint(path))
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match=r"checkpoint\.pt: not this run's checkpoint, or a damaged one"):
        train(Stripes(network(), RECIPE), RECIPE, team=ALONE, keeper=Checkpoint(path))


def test_what_fails_half_way_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def write(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_whole(path, write)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


PROGRAM = """
import sys, torch
from pathlib import Path
from tests.train.test_loop import RECIPE, Stripes, network
from train.checkpoint import Checkpoint
from train.loop import train
from train.team import assembled
torch.set_num_threads(1)
torch.manual_seed(0)
with assembled("cpu") as team:
    kind, out, slow_s = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    made = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3)) if kind == "linear" else network()
    if team.rank:  # whatever it begins with, it takes the first one's
        torch.nn.init.constant_(made[-1].weight, 1.0)
    keeper = Checkpoint(out.with_suffix(".checkpoint"), period_s=0.0) if kind == "kept" else None
    trained = train(Stripes(made, RECIPE, slow_s=slow_s), RECIPE, team=team, keeper=keeper)
    torch.save((trained.network.state_dict(), [(r.epoch, r.loss, r.metric) for r in trained.history]), f"{out}.{team.rank}")
"""


def run_program(tmp_path: Path, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), *arguments]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.getcwd()} | (environment or {}))


def result(path: Path) -> tuple[dict[str, Tensor], list[tuple[int, float, float]]]:
    found: tuple[dict[str, Tensor], list[tuple[int, float, float]]] = torch.load(path, weights_only=True)
    return found


@pytest.mark.slow
def test_killed_at_any_moment_the_final_weights_are_the_uninterrupted_ones(tmp_path: Path) -> None:
    """A checkpoint follows each step, so that many of the kills fall into the writing of one."""
    whole = tmp_path / "whole"
    assert run_program(tmp_path, "whole", str(whole), "0").wait(120) == 0
    out, random = tmp_path / "killed", np.random.default_rng(5)
    checkpoint = out.with_suffix(".checkpoint")
    for _ in range(KILLS):
        process = run_program(tmp_path, "kept", str(out), "0.05")
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        until_s = time.monotonic() + 60
        while not checkpoint.exists() or checkpoint.stat().st_mtime_ns <= before:  # at least one step further
            assert process.poll() is None
            assert time.monotonic() < until_s
            time.sleep(0.005)
        time.sleep(float(random.uniform(0, 0.12)))
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert not Path(f"{out}.0").exists()
    assert run_program(tmp_path, "kept", str(out), "0").wait(120) == 0
    assert same(result(Path(f"{out}.0"))[0], result(Path(f"{whole}.0"))[0])
    assert result(Path(f"{out}.0"))[1] == result(Path(f"{whole}.0"))[1]


@pytest.mark.slow
def test_two_processes_give_the_loss_of_one(tmp_path: Path, unused_port: int) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert run_program(tmp_path, "linear", str(one), "0").wait(120) == 0
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(unused_port), "GLOO_SOCKET_IFNAME": "lo"}
    processes = [run_program(tmp_path, "linear", str(two), "0", environment=shared | {"RANK": str(rank)}) for rank in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    (alone, history), (first, told), (second, _) = (result(Path(name)) for name in (f"{one}.0", f"{two}.0", f"{two}.1"))
    assert same(first, second)
    assert same(first, alone, 1e-5)
    assert [row[1:] for row in told] == [pytest.approx(row[1:], rel=1e-4) for row in history]
