"""What is saved is the old or the new content, whole, whatever happens; damage is refused in one sentence."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading

import pytest
import torch

from lazyneuron.core import record, tensor_part
from lazyneuron.core.errors import CheckpointError, DataError
from lazyneuron.core.sealed import read_sealed, write_sealed
from tests.core import damage, kills
from tests.core.savers import SAVERS

CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree", "os.listdir"}


def ended_before(call: int, body) -> bool:
    """Do the body in a process that ends for good right before its so-manieth change of files; did it end there?"""

    def counted() -> None:
        done = 0

        def hook(event: str, _: tuple) -> None:
            nonlocal done
            if event in CHANGES:
                done += 1
                if done == call:
                    os._exit(9)

        sys.addaudithook(hook)
        body()

    _, status = os.waitpid(kills.in_a_child(counted), 0)
    assert status in (0, 9 << 8)
    return status != 0


PARALLEL = "Checkpoints.save, two processes"
LONG = (PARALLEL, "save, read by load_quantised")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n in LONG)) for n in SAVERS if n != "write_tree"],
)
def test_ending_before_any_change_of_a_file_leaves_the_old_or_the_new(tmp_path, name):
    saver, seen = SAVERS[name], []
    saver.save(tmp_path / "before", 0)
    files = len(list((tmp_path / "before").rglob("*")))
    for call in range(1, 200):
        folder = tmp_path / str(call)
        shutil.copytree(tmp_path / "before", folder)
        if not ended_before(call, lambda folder=folder: saver.save(folder, 1)):
            break
        seen.append(saver.load(folder))
        saver.save(folder, 1)  # what was left does not stand in the way, and goes
        assert saver.load(folder) == 1
        assert not list(folder.rglob("*.part")) and len(list(folder.rglob("*"))) == files
    assert len(seen) > 8 and seen == sorted(seen) and set(seen) == {0, 1}
    assert saver.load(folder) == 1


@pytest.mark.parametrize("name", SAVERS)
def test_kills_at_random_moments_leave_the_old_or_the_new(name):
    found = kills.kill(name, kills=2)
    assert found["old"] + found["new"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", SAVERS)
def test_many_kills(name):
    least = 10 if name == PARALLEL else 30  # two processes write during a small part of the time that a save takes
    assert kills.kill(name, kills=150, seed=1)["cut"] > least


def test_damaged_files_are_refused_in_a_sentence_or_load_as_they_were():
    counts, faults = damage.run(files=120)
    assert not faults and counts["refused"] > 60


@pytest.mark.slow
def test_many_damaged_files():
    counts, faults = damage.run(files=1350, seed=1)
    assert not faults and counts["refused"] > 900


@pytest.mark.parametrize("part", ["tensors", "json"])
def test_every_byte_counts(tmp_path, part):
    write_sealed(tmp_path, "x.json", {"a": [1.5, "b"]}, {"t": {"v": torch.arange(3.0)}})
    (file,) = tmp_path.glob("*.json" if part == "json" else "*.safetensors")
    good = file.read_bytes()
    for place in range(len(good)):
        file.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        try:
            content, tensors = read_sealed(tmp_path, "x.json", what="thing")
        except CheckpointError:
            continue
        assert part == "json" and content == {"a": [1.5, "b"]} and torch.equal(tensors["t"]["v"], torch.arange(3.0))


def test_a_tensor_file_of_another_saving_is_not_taken(tmp_path):
    for name, value in (("a", 1.0), ("b", 2.0)):
        write_sealed(tmp_path / name, "x.json", name, {"t": {"v": torch.full((4,), value)}})
    (a,), (b,) = ((tmp_path / name).glob("*.safetensors") for name in "ab")
    shutil.copy(b, a)
    with pytest.raises(CheckpointError, match="is not the file that was saved"):
        read_sealed(tmp_path / "a", "x.json", what="thing")
    (tmp_path / "a" / "x.json").write_text((tmp_path / "b" / "x.json").read_text().replace(b.name, f"../b/{b.name}"))
    with pytest.raises(CheckpointError, match="does not hold a thing"):
        read_sealed(tmp_path / "a", "x.json", what="thing")


@pytest.mark.parametrize("old", [False, True])
def test_an_interrupted_saving_leaves_the_folder_as_it_was(tmp_path, monkeypatch, old):
    folder = tmp_path / "new" / "folder"
    beside = {"config.json": b"new", "more.txt": b"more"}
    if old:
        write_sealed(folder, "x.json", 0, {"t": {"v": torch.zeros(4)}}, beside={"config.json": b"old"})
        (folder / "mine.txt").write_text("kept")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for call in range(1, 40):
        calls = iter(range(1, 1000))

        def interrupted(*args, real, calls=calls, call=call):
            if next(calls) == call:
                raise KeyboardInterrupt
            return real(*args)

        with monkeypatch.context() as patch:
            for module, name in ((record, "to_disk"), (tensor_part, "to_disk"), (tensor_part, "sha256")):
                real = getattr(module, name)
                patch.setattr(module, name, lambda *args, real=real, f=interrupted: f(*args, real=real))
            real = os.replace
            patch.setattr(os, "replace", lambda *args, real=real, f=interrupted: f(*args, real=real))
            try:
                write_sealed(folder, "x.json", 1, {"t": {"v": torch.ones(4)}}, beside=beside)
                break
            except KeyboardInterrupt:
                pass
        if (folder / "x.json").exists() and read_sealed(folder, "x.json", what="thing")[0] == 1:
            continue  # it was interrupted after it counted
        assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
        assert old or not (tmp_path / "new").exists()
    assert call > 6 and read_sealed(folder, "x.json", what="thing")[0] == 1


def test_whoever_reads_while_another_saves_gets_the_old_or_the_new(tmp_path):
    folder, done = tmp_path / "x", threading.Event()

    def save(k: int) -> None:
        write_sealed(folder, "x.json", k, {"t": {"v": torch.full((1000,), k)}})

    def go_on() -> None:
        for k in range(60):
            save(k % 3)
        done.set()

    save(0)
    writers = [threading.Thread(target=go_on) for _ in range(2)]
    for writer in writers:
        writer.start()
    reads = 0
    while not done.is_set():
        content, tensors = read_sealed(folder, "x.json", what="thing")
        assert set(tensors["t"]["v"].tolist()) == {content}
        reads += 1
    for writer in writers:
        writer.join()
    assert reads > 3 and len(list(folder.iterdir())) == 2


def test_tensors_that_share_memory_are_saved_as_what_they_are(tmp_path):
    base = torch.arange(6.0)
    views = {"a": base[:4], "b": base[2:], "c": base.reshape(2, 3).t(), "none": base[:0]}
    write_sealed(tmp_path, "x.json", None, {"t": views})
    _, tensors = read_sealed(tmp_path, "x.json", what="thing")
    assert all(torch.equal(tensors["t"][name], value) for name, value in views.items())


def test_files_of_others_stay_and_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"of another program")
    for k in range(2):
        write_sealed(tmp_path, "x.json", k, {"model": {"v": torch.full((3,), k)}})
    names = {p.name.partition("-")[0] for p in tmp_path.iterdir()}
    assert names == {"model", "model.safetensors", "x.json"} and len(list(tmp_path.iterdir())) == 3
    with pytest.raises(DataError, match="Cannot write"):
        write_sealed(tmp_path / "x.json", "x.json", 0, {})
    assert json.loads((tmp_path / "x.json").read_text())["sealed"]["content"] == 1


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_all_files_may_be_read_by_whom_the_user_lets_read(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_sealed(tmp_path / "saved", "all.json", {}, {"part": {"x": torch.ones(2)}}, beside={"more": b""})
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "saved").iterdir()} == {0o666 & ~umask}
