"""Text of many kinds: what the readers make of files that are written here, and how lines are split."""

import gettext
import gzip
import struct
from collections.abc import Iterator

import pytest

from lazyneuron.core.errors import DataError
from lazyneuron.experiments.demo.corpus import is_held_out
from lazyneuron.experiments.texts import kinds
from lazyneuron.experiments.texts.corpus import Texts, read_texts
from lazyneuron.experiments.texts.kinds import OWN, File
from lazyneuron.experiments.texts.manual import manual_paragraphs
from lazyneuron.experiments.texts.messages import messages

PAGE = r""".TH GREP 1
.SH NAME
grep \- print lines that match
.SH DESCRIPTION
.B grep
searches for \fIpatterns\fP in each file;
it prints \(lqlines\(rq.
.PP
A second paragraph.
.TS
l l.
left out
.TE
.TP
.BR \-e " patterns"
Use these.
"""


def test_manual_pages_lose_their_typesetting():
    assert [" ".join(text.split()) for text in manual_paragraphs(PAGE)] == [
        "grep - print lines that match",
        "grep searches for patterns in each file; it prints lines.",
        "A second paragraph.",
        "-e patterns Use these.",
    ]


def catalogue(pairs: dict[str, str], order: str = "<") -> bytes:
    """A catalogue as the manual of gettext lays it out."""
    originals, translations = list(pairs), list(pairs.values())
    strings = [text.encode() for text in originals + translations]
    start = 28 + 8 * len(strings)
    entries, data = b"", b""
    for raw in strings:
        entries += struct.pack(f"{order}2I", len(raw), start + len(data))
        data += raw + b"\0"
    header = struct.pack(f"{order}7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 0)
    return header + entries + data


@pytest.mark.parametrize("order", ["<", ">"])
def test_messages_are_those_that_python_reads(tmp_path, order):
    path = tmp_path / "program.mo"
    pairs = {"": "Content-Type: text/plain; charset=UTF-8\n", "open the file": "öffne die Datei", "a\0b": "c\0d"}
    path.write_bytes(catalogue(pairs, order))
    with path.open("rb") as file:
        assert gettext.GNUTranslations(file).gettext("open the file") == "öffne die Datei"
    assert list(messages(path)) == ["open the file", "öffne die Datei", "a", "b", "c", "d"]


@pytest.mark.parametrize("cut", [0, 3, 27, 40, 70])
def test_damaged_catalogues_give_what_is_whole_and_no_error(tmp_path, cut):
    path = tmp_path / "program.mo"
    path.write_bytes(catalogue({"": "charset=UTF-8", "some words": "other words"})[:cut])
    assert set(messages(path)) <= {"some words", "other words", ""}


def named(count: int) -> list[str]:
    return [f"file{k}.txt" for k in range(count)]


def files(lines: int = 3) -> Iterator[File]:
    for name in named(64):
        yield File(name, lambda name=name: [f"a line of {name}, number {'x' * k}" for k in range(lines)])


def test_no_file_and_no_line_is_on_both_sides():
    def other() -> Iterator[File]:
        for name in named(64):
            yield File(f"again-{name}", lambda name=name: [f"a line of {name}, number x", f"one of its own in {name}"])

    found = read_texts(kinds={"first": files, "second": other})
    train = {line for lines in found.train.values() for line in lines}
    held = {line for lines in found.held_out.values() for line in lines}
    assert train and held and not train & held
    assert {line.split()[3].rstrip(",") for line in found.held_out["first"]} <= {n for n in named(64) if is_held_out(n)}


def test_what_belongs_together_is_on_one_side():
    def languages() -> Iterator[File]:
        for name in named(64):
            for language in ("de", "fr"):
                yield File(f"{language}/{name}", lambda n=name, w=language: [f"text of {n} in language {w}"], name)

    found = read_texts(kinds={"catalogues": languages})
    side = {line.split()[2]: "held" for line in found.held_out["catalogues"]}
    assert side and not side.keys() & {line.split()[2] for line in found.train["catalogues"]}
    assert len(found.held_out["catalogues"]) == 2 * len(side)


def test_a_long_file_and_a_large_kind_are_cut():
    found = read_texts(kinds={"long": lambda: files(lines=1_000)})
    assert max(sum(n in line for line in found.train["long"]) for n in (f"{m}," for m in named(64))) <= 400
    assert len(read_texts(most=90, kinds={"long": files}).train["long"]) == 90


def test_own_text_is_a_kind_and_too_little_of_it_is_refused(tmp_path):
    for name in named(64):
        (tmp_path / name).write_text(f"what somebody wrote into {name}\n")
    found = read_texts(data=tmp_path, kinds={"files": files})
    assert set(found.train) == {"files", OWN}
    assert all("somebody" in line for line in found.held_out[OWN])
    single = tmp_path / "file1.txt"
    with pytest.raises(DataError, match="too little text"):
        read_texts(data=single, kinds={"files": files})
    with pytest.raises(DataError, match="no file or folder"):
        read_texts(data=tmp_path / "nothing", kinds={"files": files})


def test_a_sample_takes_evenly_and_fills_up():
    texts = Texts(train={"few": tuple("abc"), "many": tuple(map(str, range(50)))}, held_out={})
    drawn = texts.sample("train", 20, seed=0)
    assert len(drawn) == len(set(drawn)) == 20
    assert sum(line in "abc" for line in drawn) == 3
    assert texts.sample("train", 20, seed=0) == drawn != texts.sample("train", 20, seed=1)


def test_kinds_of_files_are_told_by_their_names(tmp_path, monkeypatch):
    packages, shared = tmp_path / "packages", tmp_path / "share"
    for name, text in {
        "one/LICENSE": "permission is granted to everyone",
        "one/CHANGELOG.md": "- fixed the first thing\n- fixed the second thing",
        "one/README.rst": "what this package is about",
        "one/code.py": '"""what the module documents here"""\nnumber = "a line of code here"\n',
    }.items():
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_text(text)
    (shared / "man/de/man1").mkdir(parents=True)
    (shared / "man/de/man1/grep.1.gz").write_bytes(gzip.compress(PAGE.encode()))
    monkeypatch.setattr(kinds, "_packages", lambda: packages)
    monkeypatch.setattr(kinds, "_shared", lambda: [shared])
    monkeypatch.setattr(kinds, "library_sources", lambda: iter(()))

    def text(kind: str) -> str:
        return "|".join(line for file in kinds.KINDS[kind]() for line in file.read())

    assert text("licences") == "permission is granted to everyone"
    assert text("changes") == "- fixed the first thing|fixed the second thing"
    assert text("documentation") == "what this package is about"
    assert text("docstrings") == "what the module documents here"
    assert "A second paragraph." in text("manuals")
    assert text("catalogues") == ""
