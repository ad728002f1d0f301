"""The text: what is taken from a source, and that train and held-out share nothing."""

import re

import pytest

from lazyneuron.core.errors import DataError
from lazyneuron.experiments.demo.corpus import Corpus, Snippet, is_held_out, read_corpus, snippets

SOURCE = '''#!/usr/bin/env python
"""Say hello to the
whole wide world.

A second paragraph is here.
"""
# a comment of
#   two whole lines
def greet(name, loud=False):  # trailing remarks stay in the line
    """Greet one person kindly."""
    return ("HELLO" if loud else "hello") + name
x = 1
'''


def by_kind(source: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for snippet in snippets(source, "a.py"):
        found.setdefault(snippet.kind, []).append(snippet.text)
    return found


def test_what_is_taken_from_a_source():
    assert by_kind(SOURCE) == {
        "docstring": [
            "Say hello to the whole wide world.",
            "A second paragraph is here.",
            "Greet one person kindly.",
        ],
        "comment": ["a comment of two whole lines"],
        "line": [
            "def greet(name, loud=False): # trailing remarks stay in the line",
            'return ("HELLO" if loud else "hello") + name',
        ],
    }


@pytest.mark.parametrize("source", ["def broken(:\n", "\0"])
def test_a_source_that_does_not_parse_gives_nothing(source):
    assert snippets(source, "a.py") == []


def test_the_split_is_by_file_and_one_in_eight():
    names = [f"package{k}/module.py" for k in range(4000)]
    assert sum(map(is_held_out, names)) / 4000 == pytest.approx(1 / 8, abs=0.02)
    # fixed for ever: a change would mix train and held-out text of different versions
    assert [is_held_out(n) for n in ("os.py", "re/__init__.py", "ast.py")] == [False, False, False]
    assert is_held_out("asyncio/queues.py") is is_held_out("asyncio/queues.py")


def folder_of_sources(path, *, files: int = 60):
    for k in range(files):
        (path / f"module{k}.py").write_text(
            f'"""Docs number {k} are about some things."""\nshared = "the same everywhere"\n'
        )
    return path


def test_parts_share_no_file_and_no_text(tmp_path):
    corpus = read_corpus(folder_of_sources(tmp_path))
    train, held_out = corpus.train, corpus.held_out
    assert {s.file for s in train}.isdisjoint(s.file for s in held_out)
    assert {s.text for s in train}.isdisjoint(s.text for s in held_out)
    assert all(is_held_out(s.file) for s in held_out) and not any(is_held_out(s.file) for s in train)
    assert len({s.text for s in train}) == len(train)
    assert sum(s.text == 'shared = "the same everywhere"' for s in train) == 1


def test_reading_is_deterministic_and_skips_what_it_must(tmp_path):
    folder_of_sources(tmp_path)
    (tmp_path / "module0.py").write_bytes(b"\xff\xfe not utf-8")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text("# a comment that no one shall ever see\n")
    corpus = read_corpus(tmp_path)
    assert corpus == read_corpus(tmp_path)
    assert not any(re.search("no one shall|utf-8", s.text) for s in corpus.train + corpus.held_out)


def test_a_folder_without_text_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no Python sources.*pass a folder"):
        read_corpus(tmp_path)


def test_a_sample_is_even_over_the_kinds_and_a_function_of_the_seed():
    def many(kind: str) -> list[Snippet]:
        return [Snippet(text=f"{kind} {k}", kind=kind, file="a.py") for k in range(50)]

    corpus = Corpus(train=(*many("line"), *many("comment"), *many("docstring")), held_out=())
    drawn = corpus.sample("train", 20, seed=4)
    assert sorted(sum(t.startswith(k) for t in drawn) for k in ("line", "comment", "docstring")) == [6, 7, 7]
    assert drawn == corpus.sample("train", 20, seed=4) != corpus.sample("train", 20, seed=5)
    assert len(set(drawn)) == 20
    assert len(corpus.sample("train", 1000, seed=0)) == 150


@pytest.mark.slow
def test_the_standard_library_has_enough():
    corpus = read_corpus()
    for part in ("train", "held_out"):
        kinds = [s.kind for s in getattr(corpus, part)]
        assert min(kinds.count(k) for k in ("line", "comment", "docstring")) > 500
    assert len(corpus.sample("held_out", 600, seed=1)) == 600
