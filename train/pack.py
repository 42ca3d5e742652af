"""A data set written as WebDataset shards: what a few large files are read faster than many small ones from."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import msgspec

from edge.boxes_data import BoxSample
from edge.card import Label
from edge.datasets import Sample
from edge.errors import DataError
from edge.layouts import Picture
from edge.pictures import decode_picture
from train.shard_sets import CLASSES, INDEX, Index, ShardCount


def write_shards(
    parts: dict[str, list[Picture]],
    labels: Sequence[Label],
    out: Path,
    limit: int,
    folder: Path,
    bad: Callable[[str], None],
    told: Callable[[int], None] = lambda done: None,
) -> dict[str, int]:
    """Write each part's pictures into shards of about `limit` bytes; samples of each shard by its name.

    `told` hears after each picture how many there were.

    The order depends on the pictures' paths below `folder` alone, and so do all bytes on the pictures and labels.
    """
    out.mkdir(parents=True, exist_ok=True)
    shards: list[ShardCount] = []
    done = count(1)

    def read(samples: Sequence[Picture]) -> Iterator[Picture]:
        for sample in _mixed(samples, folder):
            yield sample
            told(next(done))

    for part, samples in parts.items():
        shards += _write_part(part, read(samples), labels, out, limit, bad)
    if not shards:
        raise DataError(f"{folder}: none of its pictures can be read; nothing was written to {out}")
    names = "".join(f"{label.name if _one_line(label.name) else label.id}\n" for label in labels)
    (out / CLASSES).write_text(names, encoding="utf-8")
    index = msgspec.json.encode(Index(shards))  # on one line: a thousand classes would be a thousand lines a shard
    (out / INDEX).write_bytes(msgspec.json.format(index, indent=0) + b"\n")
    return {shard.url: shard.nsamples for shard in shards}


def _write_part(
    part: str, samples: Iterable[Picture], labels: Sequence[Label], out: Path, limit: int, bad: Callable[[str], None]
) -> list[ShardCount]:
    shards: list[ShardCount] = []
    with ExitStack() as stack:
        tar = None
        for number, (sample, raw) in enumerate(_read(samples, bad)):
            if tar is None or (tar.offset + len(raw) > limit and shards[-1].nsamples):
                stack.close()
                name = f"{part}-{len(shards):06d}.tar"
                shards.append(ShardCount(name, 0, [0] * len(labels)))
                tar = stack.enter_context(tarfile.open(out / name, "w", format=tarfile.USTAR_FORMAT))
            key, suffix = f"{number:08d}", sample.path.suffix.lower()
            label, content = _label(sample, labels)
            for name_in_tar, data in ((key + suffix, raw), (f"{key}.{label}", content)):
                member = tarfile.TarInfo(name_in_tar)  # of no time and no user: the same pictures give the same bytes
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            _count(shards[-1], sample)
    return shards


def _count(shard: ShardCount, sample: Picture) -> None:
    assert shard.label_counts is not None
    shard.nsamples += 1
    for class_id in [sample.class_id] if isinstance(sample, Sample) else sample.class_ids[~sample.ignored]:
        shard.label_counts[class_id] += 1


def _label(sample: Picture, labels: Sequence[Label]) -> tuple[str, bytes]:
    """The kind and content of a sample's label file: WebDataset's class number, or boxes in pixels and their classes."""
    if isinstance(sample, Sample):
        return "cls", str(sample.class_id).encode()
    return "json", msgspec.json.encode(_boxes(sample, labels))


def _boxes(sample: BoxSample, labels: Sequence[Label]) -> dict[str, object]:
    found: dict[str, object] = {
        "boxes": [[round(float(side), 3) for side in box] for box in sample.boxes_xyxy],
        "classes": [int(class_id) for class_id in sample.class_ids],
    }
    return found | ({"ignored": sample.ignored.tolist()} if sample.ignored.any() else {})


def _read(samples: Iterable[Picture], bad: Callable[[str], None]) -> Iterator[tuple[Picture, bytes]]:
    """Each sample with its picture's file; those that cannot be decoded are named to `bad`."""
    for sample in samples:
        try:
            raw = sample.path.read_bytes()
            decode_picture(raw, str(sample.path))
        except OSError as error:
            bad(f"skipped {sample.path}: cannot be read: {error.strerror or error}")
        except DataError as error:
            bad(f"skipped {error}")
        else:
            yield sample, raw


def _mixed(samples: Sequence[Picture], folder: Path) -> list[Picture]:
    def key(sample: Picture) -> bytes:
        return hashlib.sha256(os.fsencode(os.path.relpath(sample.path, folder))).digest()

    return sorted(samples, key=key)


def _one_line(name: str) -> bool:
    return len(name.splitlines()) == 1
