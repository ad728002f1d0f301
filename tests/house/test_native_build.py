"""The kernels are rebuilt when their sources change, a failed build leaves what was there, and loading says why not."""

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lazyneuron.core.errors import ImplUnavailable
from lazyneuron.ops.native import build, load
from tests.kernels import needs_kernels

KERNELS = "namespace LAZY_ISA { int value() { return 1; } }\n"
BINDINGS = 'extern "C" int lazyneuron_test_value() { return 1; }\n'

needs_compiler = pytest.mark.skipif(not build.shutil.which("c++"), reason="no C++ compiler is installed here")


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A stand-in for csrc/ that compiles in a moment."""
    folder = tmp_path / "csrc"
    folder.mkdir()
    (folder / "kernels.cpp").write_text(KERNELS)
    (folder / "bindings.cpp").write_text(BINDINGS)
    for name in ("problem.h", "boolean_kernels.cpp", "boolean_bindings.cpp"):
        (folder / name).write_text("")
    monkeypatch.setattr(build, "sources", lambda: folder)
    monkeypatch.setattr(build, "isa_levels", lambda: ("portable",))
    monkeypatch.delenv("CXX", raising=False)
    return folder


@pytest.mark.parametrize("name", ["kernels.cpp", "bindings.cpp", "boolean_kernels.cpp", "problem.h"])
def test_the_identity_follows_every_source(tiny, name):
    before = build.identity()
    assert build.identity() == before
    (tiny / name).write_text((tiny / name).read_text() + "// edited\n")
    assert build.identity() != before


def test_the_identity_follows_the_flags(tiny, monkeypatch):
    before = build.identity()
    monkeypatch.setattr(build, "_FLAGS", (*build._FLAGS, "-O0"))
    assert build.identity() != before


def test_a_new_header_changes_the_identity(tiny):
    before = build.identity()
    (tiny / "simd.h").write_text("")
    assert build.identity() != before


@needs_compiler
def test_building_happens_once_and_again_after_an_edit(tiny, tmp_path):
    target = tmp_path / "out" / "_native.so"
    assert build.build(target)
    assert build.identity_of(target) == build.identity()
    assert not build.build(target)
    assert build.build(target, force=True)
    (tiny / "bindings.cpp").write_text(BINDINGS.replace("return 1", "return 2"))
    assert build.build(target)
    assert build.identity_of(target) == build.identity()
    assert [p.name for p in target.parent.iterdir()] == ["_native.so"]


@needs_compiler
def test_a_compiler_error_is_one_sentence_and_leaves_the_old_library(tiny, tmp_path):
    target = tmp_path / "_native.so"
    target.write_bytes(b"old")
    (tiny / "kernels.cpp").write_text("this is no C++\n")
    with pytest.raises(build.BuildError, match=r"^The C\+\+ compiler .* could not build .*kernels\.cpp:1:.*error.*$"):
        build.build(target)
    assert target.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["_native.so", "csrc"]


def test_ctrl_c_leaves_the_old_library(tiny, tmp_path, monkeypatch):
    target = tmp_path / "_native.so"
    target.write_bytes(b"old")

    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "find_compiler", lambda: ["c++"])
    monkeypatch.setattr(build.subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build.build(target)
    assert target.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["_native.so", "csrc"]


def test_what_needs_least_of_the_processor_is_linked_first():
    names = ["a_avx512_popcnt", "a_avx512_vnni", "a_avx512", "a_avx2", "a_portable", "b_portable", "bindings", "stamp"]
    order = [path.stem for path in build.in_link_order(Path(f"{name}.o") for name in sorted(names))]
    by_level = ["a_portable", "b_portable", "a_avx2", "a_avx512", "a_avx512_vnni", "a_avx512_popcnt"]
    assert order == ["bindings", "stamp", *by_level]


@needs_kernels
@pytest.mark.skipif(platform.machine() != "x86_64", reason="levels are those of x86")
@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed")
def test_only_the_code_of_a_level_uses_its_registers():
    command = ["objdump", "-d", "--no-show-raw-insn", str(build.packaged())]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    users: dict[str, set[str]] = {"ymm": set(), "zmm": set()}
    function = ""
    for line in listing.splitlines():
        if line.endswith(">:"):
            function = line.split("<", 1)[1]
        elif found := re.search(r"%([yz]mm)", line):
            users[found.group(1)].add(function)
    assert users["ymm"] and users["zmm"]
    assert [name for name in users["zmm"] if "avx512" not in name] == []
    assert [name for name in users["ymm"] if "avx2" not in name and "avx512" not in name] == []


def test_a_missing_compiler_says_what_to_install(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda _: None)
    with pytest.raises(build.BuildError, match="No C\\+\\+ compiler was found; install"):
        build.build(tmp_path / "_native.so")
    monkeypatch.setenv("CXX", "no-such-compiler -m64")
    with pytest.raises(build.BuildError, match="CXX names"):
        build.build(tmp_path / "_native.so")


def test_missing_or_old_torch_says_what_to_install(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(build.BuildError, match="torch is not installed"):
        build.find_torch()
    old = tmp_path / "torch"
    old.mkdir()
    (old / "__init__.py").write_text("")
    (old / "version.py").write_text("__version__ = '2.9.1+cpu'\n")
    spec = build.importlib.util.spec_from_file_location("torch", old / "__init__.py")
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(build.BuildError, match=r"need torch>=2\.10 .*got 2\.9\.1"):
        build.find_torch()
    (old / "version.py").write_text("__version__ = '2.10.0'\n")
    with pytest.raises(build.BuildError, match="without C\\+\\+ headers"):
        build.find_torch()


def test_a_folder_that_cannot_be_written_is_named(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "find_compiler", lambda: ["c++"])
    (tmp_path / "file").write_text("")
    with pytest.raises(build.BuildError, match=r"Cannot write to .*file"):
        build.build(tmp_path / "file" / "_native.so")


@pytest.mark.parametrize("content", [None, b"", b"lazyneuron-native-build:short", b"\x7fELF"])
def test_a_library_without_a_mark_has_no_identity(tmp_path, content):
    path = tmp_path / "_native.so"
    if content is not None:
        path.write_bytes(content)
    assert build.identity_of(path) is None


@pytest.fixture
def not_loaded(tiny, tmp_path, monkeypatch):
    """A process that has looked for no library yet, with places for one that are empty."""
    monkeypatch.setattr(load, "_load_once", load.functools.cache(load._load_once.__wrapped__))
    monkeypatch.setattr(build, "packaged", lambda: tmp_path / "packaged.so")
    monkeypatch.setattr(load.platformdirs, "user_cache_path", lambda _: tmp_path / "cache")
    monkeypatch.delenv("LAZYNEURON_NATIVE", raising=False)
    return tmp_path


def test_loading_what_is_not_there_says_what_to_do(not_loaded):
    with pytest.raises(ImplUnavailable, match="not built here; run `lazyneuron doctor --build`"):
        load.load()
    status = load.status()
    assert not status.available and status.isa is None and "not built" in status.reason


def test_loading_a_stale_library_is_refused(not_loaded):
    (not_loaded / "packaged.so").write_bytes(b"lazyneuron-native-build:0123456789abcdef")
    with pytest.raises(ImplUnavailable, match=r"packaged\.so was built from other sources"):
        load.load()


def test_a_library_that_is_no_library_is_refused(not_loaded):
    (not_loaded / "packaged.so").write_bytes(b"lazyneuron-native-build:" + build.identity().encode())
    with pytest.raises(ImplUnavailable, match="does not load"):
        load.load()


@needs_compiler
def test_a_stale_package_gives_way_to_the_cache_folder(not_loaded, monkeypatch):
    (not_loaded / "packaged.so").write_bytes(b"lazyneuron-native-build:0123456789abcdef")
    build.build(load.cached())
    loaded = []
    monkeypatch.setattr(load.torch.ops, "load_library", loaded.append)
    load.load()
    load.load()
    assert loaded == [load.cached()]


@pytest.mark.parametrize("value", ["off", "OFF", "0"])
def test_the_kernels_can_be_switched_off(monkeypatch, value):
    monkeypatch.setenv("LAZYNEURON_NATIVE", value)
    with pytest.raises(ImplUnavailable, match="switched off by LAZYNEURON_NATIVE"):
        load.load()
