"""Everything that saves, each as two contents that take turns in one folder; for kills and for damage."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import dataclasses
import functools
import os
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

import lazyneuron as lazy
from lazyneuron.blocks import Activation
from lazyneuron.core.errors import CheckpointError
from lazyneuron.experiments.reproduce.peng.regime.text import Bytes, digest, keep_bytes, read_bytes
from lazyneuron.experiments.reproduce.tiny_lm.text import Text, keep_text, read_text
from lazyneuron.route import BucketTable, load_table, save_table
from lazyneuron.route.estimators import LSHClassifier, LSHRegressor, load_estimator, save_estimator
from lazyneuron.train import Checkpoints
from lazyneuron.train.tree import read_tree, write_tree
from tests.kernels import NATIVE


class Other(Exception):
    """What was loaded is none of the contents that were saved."""


@dataclasses.dataclass(frozen=True)
class Saver:
    """Saves content 0 or 1 (or a later one, where every number is a content) and tells which one a folder holds."""

    save: Callable[[Path, int], Any]
    load: Callable[
        [Path], int
    ]  # raises what the library raises, or Other; and AssertionError if it half changed a target
    contents: int = 2


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))


@functools.cache
def _models() -> list[nn.Sequential]:
    made = []
    for threshold in (1.0, 2.0):
        model = plain()
        lazy.sparsify_(model, lazy.Relufy(activation=Activation("fatrelu", (threshold,))))
        for parameter in model.parameters():
            nn.init.constant_(parameter, threshold)
        made.append(model)
    return made


def _load_model(folder: Path) -> int:
    model = plain()
    with unchanged_on_failure(lambda: [*model.state_dict().values(), *map(hash, vars(model)["_modules"].values())]):
        lazy.load_(model, folder)
    (block,) = lazy.find_blocks(model)
    return _one_of({*_extremes(model.state_dict().values()), *block.activation.parameters}) - 1


def _constant(model: nn.Module, value: float) -> nn.Module:
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
    lazy.accelerate_(model.eval(), weights="int4", rest="int8")
    return model


def rectified() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))


@functools.cache
def _quantised() -> list[nn.Module]:
    return [_constant(rectified(), value) for value in (1.0, 2.0)]


@functools.cache
def _language_models() -> list[nn.Module]:
    from transformers import OPTConfig, OPTForCausalLM

    sizes = {"hidden_size": 64, "ffn_dim": 128, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 96}
    config = OPTConfig(**sizes, max_position_embeddings=16, word_embed_proj_dim=64)
    return [_constant(OPTForCausalLM(config), value) for value in (1.0, 2.0)]


def _which(model: nn.Module, made: Sequence[nn.Module]) -> int:
    """Which of the models has all tensors of this one, bit for bit."""
    got = model.state_dict()
    for number, wanted in enumerate(made):
        state = wanted.state_dict()
        if list(got) == list(state) and all(torch.equal(got[name], state[name]) for name in state):
            return number
    raise Other("another model")


def _load_quantised(folder: Path) -> int:
    model = rectified()
    with unchanged_on_failure(lambda: [*model.state_dict().values(), *map(hash, vars(model)["_modules"].values())]):
        lazy.load_(model, folder)
    return _which(model, _quantised())


@contextlib.contextmanager
def unchanged_on_failure(state: Callable[[], list[Any]]) -> Iterator[None]:
    """Asserts that what a failing body works on is as it was."""
    before = copy.deepcopy(state())
    try:
        yield
    except Exception as error:
        same = [
            torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(before, state(), strict=True)
        ]
        assert all(same), f"half loaded: {error}"
        raise


def _extremes(tensors: Iterable[Any]) -> set[float]:
    tensors = list(tensors)
    if not all(isinstance(t, torch.Tensor) and t.numel() for t in tensors):
        raise Other("no tensors")
    return {float(v) for t in tensors for v in (t.detach().min(), t.detach().max())}


def _one_of(values: set[Any]) -> int:
    if len(values) != 1:
        raise Other(f"a mix of {sorted(map(str, values))}")
    return int(values.pop())


@functools.cache
def _estimators() -> tuple[np.ndarray, list[Any], list[np.ndarray]]:
    x = np.random.default_rng(0).normal(size=(400, 3))
    made = [LSHRegressor(tables=2).fit(x, x[:, 0]), LSHClassifier().fit(x, np.where(x[:, 1] > 0, "a", "b"))]
    return x[:50], made, [m.predict(x[:50]) for m in made]


def _load_estimator(folder: Path) -> int:
    x, made, wanted = _estimators()
    got = load_estimator(folder)
    for number, (model, y) in enumerate(zip(made, wanted, strict=True)):
        if got.get_params() == model.get_params() and np.array_equal(got.predict(x), y):
            return number
    raise Other("another estimator")


@functools.cache
def _tables() -> list[BucketTable]:
    made = [BucketTable(3, capacity=40_000), BucketTable(3, capacity=500, on_full="share")]
    for seed, table in enumerate(made):
        dice = torch.Generator().manual_seed(seed)
        table.add(torch.randint(-50, 50, (30_000, 3), generator=dice, dtype=torch.int32))
    return made


def _load_table(folder: Path) -> int:
    got = load_table(folder)
    facts = (got.capacity, got.on_full, got.shared_rows)
    for number, table in enumerate(_tables()):
        if facts == (table.capacity, table.on_full, table.shared_rows) and torch.equal(got.vectors, table.vectors):
            return number
    raise Other("another table")


class Counting:
    """A part of a training whose state is one number."""

    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"] + 0


def training(
    folder: Path, *, sharded: bool = False
) -> tuple[Checkpoints, nn.Module, torch.optim.Optimizer, Counting, torch.Generator]:
    model = nn.Linear(256, 256)
    if sharded:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    part, dice = Counting(), torch.Generator()
    return Checkpoints(folder, model, keep=1, optimizer=optimizer, part=part, dice=dice), model, optimizer, part, dice


def _save_training(folder: Path, content: int, *, step: int | None = None, sharded: bool = False) -> None:
    checkpoints, model, optimizer, part, dice = training(folder, sharded=sharded)
    part.count = content
    dice.manual_seed(content)
    for parameter in model.parameters():
        nn.init.constant_(parameter, content)
        optimizer.state[parameter]["momentum_buffer"] = torch.full_like(parameter, content)
    checkpoints.save(content + 1 if step is None else step)


def _save_sharded(folder: Path, content: int, *, processes: int = 2) -> None:
    """The same by processes of which each holds a shard; they end when this one does."""
    import torch.distributed.fsdp

    import lazyneuron.train.shards  # here, so that the children have it  # noqa: F401

    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        children = []
        for rank in range(processes):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
                    torch.set_num_threads(1)
                    dist.init_process_group("gloo", f"file://{place}/store", rank=rank, world_size=processes)
                    _save_training(folder, content, sharded=True)
                    status = 0
                finally:
                    os._exit(status)
            children.append(child)
        ends = [os.waitpid(child, 0)[1] for child in children]
        if 9 << 8 in ends:  # a test of crashes ended one, which ends the whole training
            os._exit(9)
        assert ends == [0] * processes


def _load_training(folder: Path, *, step: int | None = None) -> int:
    checkpoints, model, optimizer, part, dice = training(folder)

    def state() -> list[Any]:
        moments = [s["momentum_buffer"] for s in optimizer.state.values()]
        return [*model.state_dict().values(), len(moments), *moments, part.count, dice.get_state()]

    with unchanged_on_failure(state), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            found = checkpoints.resume_()
        except UserWarning as said:
            raise CheckpointError(str(said)) from said
    moments = [s["momentum_buffer"] for s in optimizer.state.values()]
    values = _extremes([*model.parameters(), *moments]) | {part.count, dice.initial_seed()}
    return _one_of(values | (set() if step else {found - 1}))


def _trees() -> list[Any]:
    return [{"a": torch.full((50, 50), k), "b": [k, float(k), {"c": (k, None)}]} for k in range(2)]


def _load_tree(folder: Path) -> int:
    got = read_tree(folder, "x")
    for number, tree in enumerate(_trees()):
        if repr(got) == repr(tree) and torch.equal(got["a"], tree["a"]):
            return number
    raise Other("another tree")


@functools.cache
def _texts() -> list[Text]:
    streams = [
        {side: torch.full((500,), k, dtype=torch.int32) for side in ("train", "files", "packages")} for k in (0, 1)
    ]
    return [Text(**sides, tokenizer=str(k), facts={"vocabulary": k}) for k, sides in enumerate(streams)]


def _bytes() -> list[Bytes]:
    streams = [torch.full((n,), k, dtype=torch.uint8) for k, n in enumerate((1000, 2000))]
    return [Bytes(train=s, held_out=s[:9], facts={"sha256": digest(s, s[:9])}) for s in streams]


def _load_bytes(folder: Path) -> int:
    text = read_bytes(folder)
    if text is None:
        raise CheckpointError("nothing is there")
    return _one_of({*text.train.unique().tolist(), *text.held_out.unique().tolist()})


def _load_text(folder: Path) -> int:
    text = read_text(folder)
    if text is None:
        raise CheckpointError("There is no text.")
    return _one_of({*_extremes([text.train, text.files, text.packages]), int(text.tokenizer), text.facts["vocabulary"]})


SAVERS = {
    "keep_bytes": Saver(lambda folder, k: keep_bytes(_bytes()[k], folder), _load_bytes),
    "keep_text": Saver(lambda folder, k: keep_text(_texts()[k], folder), _load_text),
    "save": Saver(lambda folder, k: lazy.save(_models()[k], folder), _load_model),
    **(
        {
            "save, quantised": Saver(lambda folder, k: lazy.save(_quantised()[k], folder), _load_quantised),
            "save, read by load_quantised": Saver(
                lambda folder, k: lazy.save(_language_models()[k], folder),
                lambda folder: _which(lazy.load_quantised(folder)[0], _language_models()),
            ),
        }
        if NATIVE
        else {}
    ),
    "save_estimator": Saver(lambda folder, k: save_estimator(_estimators()[1][k], folder), _load_estimator),
    "save_table": Saver(lambda folder, k: save_table(_tables()[k], folder), _load_table),
    "Checkpoints.save, the same step": Saver(
        lambda folder, k: _save_training(folder, k, step=7), lambda folder: _load_training(folder, step=7)
    ),
    "Checkpoints.save, further steps": Saver(_save_training, _load_training, contents=1 << 30),
    "Checkpoints.save, two processes": Saver(_save_sharded, _load_training, contents=1 << 30),
    "write_tree": Saver(lambda folder, k: write_tree(_trees()[k], folder, "x"), _load_tree),
}
