"""The text of tiny-lm: nothing held out is learned from, and batches follow from the step alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lazyneuron.core.errors import CheckpointError, DataError
from lazyneuron.experiments.demo.corpus import is_held_out
from lazyneuron.experiments.reproduce.tiny_lm.sources import LIBRARY, Sources, packages_of, read_sources
from lazyneuron.experiments.reproduce.tiny_lm.text import (
    batch_of,
    keep_text,
    make_text,
    read_text,
    tokenizer_of,
    windows,
)

pytest.importorskip("transformers")


def source(word: str, lines: int = 12) -> str:
    return "".join(f"def {word}_number_{k}(argument):\n    return argument_of_{word} + {k}\n" for k in range(lines))


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Path, Path]:
    """A standard library and installed packages, two of which are held out by their names."""
    library, installed = tmp_path / "library", tmp_path / "installed"
    write(library, {f"module{k}.py": source(f"library{k}") for k in range(60)})
    for package in [f"package{k}" for k in range(20)]:
        write(installed, {f"{package}/__init__.py": "", f"{package}/tests/test_a.py": source("tested")})
        write(installed, {f"{package}/part{k}.py": source(f"{package}part{k}") for k in range(10)})
    return library, installed


def names(sources: Sources, side: str) -> set[str]:
    return {document.name for document in getattr(sources, side)}


def test_files_and_whole_packages_are_held_out(machine: tuple[Path, Path]) -> None:
    found = read_sources(library=machine[0], installed=machine[1])
    learned = {d.package for d in found.train}
    held = {d.package for d in found.packages}
    assert held and not held & learned and LIBRARY in learned
    assert {d.package for d in found.files} <= learned and all(is_held_out(d.name) for d in found.files)
    assert not any(is_held_out(d.name) for d in found.train)
    assert all(is_held_out(f"package {name}") for name in held)
    assert sum(len(getattr(found, side)) for side in ("train", "files", "packages")) == 60 + 200
    assert not any("tests" in name for name in names(found, "train"))
    assert sum(packages_of(found.train).values()) == sum(len(d.text) for d in found.train)


def test_copies_do_not_leak(machine: tuple[Path, Path]) -> None:
    library, installed = machine
    before = read_sources(library=library, installed=installed)
    known = before.train[0].text
    held = next(document for document in before.files if document.package == LIBRARY)
    (library / held.name).write_text(known.replace("\n    ", "\n        "))  # white space alone does not tell
    after = read_sources(library=library, installed=installed)
    assert held.name not in names(after, "files") and after.left_out == before.left_out
    half = "".join(known.splitlines(keepends=True)[:12]) + source("other", 6)
    (library / held.name).write_text(half)
    after = read_sources(library=library, installed=installed)
    assert held.name not in names(after, "files") and after.left_out == before.left_out + 1
    few = "".join(known.splitlines(keepends=True)[:4]) + source("other", 12)
    (library / held.name).write_text(few)
    assert held.name in names(read_sources(library=library, installed=installed), "files")


def test_limits_and_what_is_no_text(machine: tuple[Path, Path]) -> None:
    library, installed = machine
    (library / "table.py").write_text("T = [" + "0x1, " * 400 + "]")
    (library / "empty.py").write_text("")
    size = len(source("library1"))
    found = read_sources(library=library, installed=installed, package_limit=3 * size)
    assert not {"table.py", "empty.py"} & names(found, "train")
    taken = packages_of(found.train)
    assert len(taken) > 5 and max(v for k, v in taken.items() if k != LIBRARY) < 5 * size
    few = read_sources(library=library, installed=installed, limit=5 * size)
    assert sum(len(d.text) for d in few.train) < 7 * size and {d.package for d in few.files} == {LIBRARY}
    with pytest.raises(DataError, match="too few Python sources"):
        read_sources(library=library / "none", installed=installed / "none")


def test_text_is_kept_whole(machine: tuple[Path, Path], tmp_path: Path) -> None:
    sources = read_sources(library=machine[0], installed=machine[1])
    assert read_text(tmp_path / "text") is None
    made = make_text(sources, vocabulary=300)
    keep_text(made, tmp_path / "text")
    kept = read_text(tmp_path / "text")
    assert kept is not None and kept.facts == made.facts and kept.tokenizer == made.tokenizer
    assert torch.equal(kept.train, made.train) and int(made.train.max()) < 300
    tokenizer = tokenizer_of(kept)
    documents = tokenizer.decode(kept.files).split("<|end|>")
    assert sorted(filter(None, documents)) == sorted(d.text for d in sources.files)
    assert int((made.packages == tokenizer.eos_token_id).sum()) == len(sources.packages) + 1
    with pytest.raises(DataError, match="pass more text"):
        make_text(sources, vocabulary=50_000)
    (part,) = (tmp_path / "text").glob("streams-*")
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="does not hold a text of tiny-lm"):
        read_text(tmp_path / "text")


def test_an_epoch_takes_every_piece_once_and_the_next_one_in_another_order() -> None:
    stream = torch.arange(1000, dtype=torch.int32)
    epochs = []
    for epoch in range(2):
        rows = torch.cat([batch_of(stream, 12 * epoch + k, length=20, batch=4, seed=3) for k in range(12)])
        assert rows.shape == (48, 20) and bool((rows[:, 1:] == rows[:, :-1] + 1).all())
        assert len(set(rows[:, 0].tolist())) == 48 and len({v % 20 for v in rows[:, 0].tolist()}) == 1
        epochs.append(rows)
    assert not torch.equal(*epochs)
    assert torch.equal(epochs[1][4:8], batch_of(stream, 13, length=20, batch=4, seed=3))
    with pytest.raises(DataError, match="too few for a batch"):
        batch_of(stream, 0, length=400, batch=4, seed=0)


def test_windows_are_spread_and_apart() -> None:
    found = windows(torch.arange(1007, dtype=torch.int32), 10, 5)
    assert found[:, 0].tolist() == [0, 240, 490, 740, 990] and found.dtype == torch.int64
    assert len(windows(torch.arange(25), 10, 5)) == 2
    with pytest.raises(DataError, match="a window takes 10"):
        windows(torch.arange(9), 10, 5)
