"""Which pictures are learned from and which measure."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.errors import UsageError
from edge.layouts import labels_of
from tests.train.pictured import jpeg, put, scene
from train.sources import open_data


def test_a_share_of_data_that_has_a_val_part_is_refused_whatever_its_name(tmp_path: Path) -> None:
    data = tmp_path / "a{b}{}"
    for part in ("train", "val"):
        for seed, name in enumerate(("cat", "dog")):
            put(data / part / name / "1.jpg", jpeg(scene(seed)))
    with pytest.raises(UsageError) as refused:
        open_data((str(data),), labels_of(data), "classify", None, share=0.5, seed=0, say=lambda line: None)
    assert str(refused.value) == f"--val-share: {data} has a val part, which is what measures; leave the option out"
