"""Requests and answers over a pipe, with an engine that computes nothing."""

import dataclasses
import time
from pathlib import Path

import pytest

from lazyneuron.core.errors import ConfigError, ImplUnavailable
from lazyneuron.experiments.bench.generation.peers.peer import ENGINES, Peer, begin, check_interpreter
from lazyneuron.experiments.bench.generation.shapes import SMALL

FAKE = Path(__file__).parent / "fake_engine.py"


def wanted(form="good"):
    return {"shape": dataclasses.asdict(SMALL), "format": form, "threads": 2, "folder": "."}


def test_an_engine_answers_and_what_it_prints_is_no_answer():
    with Peer(FAKE, python=None, wanted=wanted()) as peer:
        assert peer.facts == {"versions": {"fake": "1"}, "settings": {"threads": 2}, "bytes_a_token": 1000}
        assert peer.decode([5, 6, 7], 4) == [3.0] * 4
        assert peer.prefill([1]) == [1.5]
        with pytest.raises(ImplUnavailable, match=r"ValueError: there is$"):
            peer.decode([], 4)
        assert peer.decode([5], 1) == [1.0]  # an error ends nothing
        process = peer._process
    assert process.returncode is not None


def test_processor_time_between_requests_is_told_apart_from_that_within():
    with Peer(FAKE, python=None, wanted=wanted()) as peer:
        peer.prefill([1])  # takes 10 ms of a processor
        time.sleep(0.15)
        peer.decode([1], 1)
        assert peer.idle < 0.05


@pytest.mark.parametrize(
    ("form", "said"), [("missing", "No module named 'engine'"), ("dead", r"process ended\. out of luck")]
)
def test_an_engine_that_does_not_begin_says_why(form, said):
    with pytest.raises(ImplUnavailable, match=said):
        Peer(FAKE, python=None, wanted=wanted(form))


def test_interpreters_that_are_none(tmp_path):
    plain = tmp_path / "python"
    plain.write_text("no program")
    for path in (tmp_path / "nothing", plain, tmp_path):
        with pytest.raises(ConfigError, match="no interpreter that can be run"):
            check_interpreter(path)
    check_interpreter(None)
    plain.chmod(0o755)
    with pytest.raises(ImplUnavailable, match="does not run"):
        Peer(FAKE, python=plain, wanted=wanted())


def test_an_engine_whose_package_is_not_here(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.setitem(ENGINES, "llama.cpp", tmp_path / "engine.py")
    (tmp_path / "engine.py").write_text("import a_package_that_nobody_has\n")
    with pytest.raises(ImplUnavailable, match="No module named 'a_package_that_nobody_has'"):
        begin("llama.cpp Q8_0", SMALL, python=None, threads=1, folder=folder)
    assert not list(folder.iterdir())
