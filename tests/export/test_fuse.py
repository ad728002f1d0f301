"""What follows a block and becomes part of its operator: the sum with its input, and a layer norm of that."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lazyneuron.blocks import find_blocks
from lazyneuron.export.openvino.convert import converted, core_with
from lazyneuron.export.openvino.layout import packed_operator
from tests.export.openvino import EXACT, evaluate, library, needs_openvino

pytestmark = needs_openvino
WIDTH = 48
TOLERANCE = {"keep": 2e-5, "bf16": 2e-2, "int8": 5e-2}


class Block(nn.Module):
    def __init__(self, gated: bool) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 200), nn.Linear(200, WIDTH)
        self.gate = nn.Linear(WIDTH, 200) if gated else None

    def forward(self, x: Tensor) -> Tensor:
        if self.gate is None:
            return self.down(torch.relu(self.up(x)))
        return self.down(torch.relu(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    """A block with what a transformer's layer may do behind it."""

    def __init__(self, follow: str, *, gated: bool = False) -> None:
        super().__init__()
        self.mlp = Block(gated)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-3, elementwise_affine=follow != "norm without weights")
        for parameter in self.norm.parameters():
            nn.init.normal_(parameter, 1.0)
        self.follow = follow

    def forward(self, x: Tensor) -> Tensor:
        y = self.mlp(x)
        match self.follow:
            case "nothing":
                return y
            case "another sum":
                return self.norm(y + 2 * x)
            case "a norm without sum":
                return self.norm(y)
            case "sum":
                return 3 * (x + y)
            case "sum with two readers":
                return self.norm(total := x + y) + total
            case "norm of another axis":
                return nn.functional.layer_norm((x + y).transpose(-1, -2), (5,)).transpose(-1, -2)
        return self.norm(y + x)


FOLLOWS = {  # nodes of these types that are left
    "norm": {"MVN": 0, "Add": 0},
    "norm without weights": {"MVN": 0, "Add": 0},
    "sum": {"MVN": 0, "Add": 0, "Multiply": 1},
    "sum with two readers": {"MVN": 1},
    "nothing": {},
    "another sum": {"MVN": 1},
    "a norm without sum": {"MVN": 1},
}


def made(follow: str, gated: bool = False) -> nn.Module:
    torch.manual_seed(3)
    return Layer(follow, gated=gated).eval()


def exported(model: nn.Module, weights: str, x: Tensor) -> Any:
    blocks = find_blocks(model, x)
    return converted(model, [(block, packed_operator(block, weights)) for block in blocks], x, library())


def counts(model: Any) -> dict[str, int]:
    kinds = [node.get_type_name() for node in model.get_ops()]
    return {kind: kinds.count(kind) for kind in kinds}


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("weights", TOLERANCE)
@pytest.mark.parametrize("follow", FOLLOWS)
def test_outputs_are_those_of_the_model(follow: str, weights: str, gated: bool) -> None:
    model, x = made(follow, gated), torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(1))
    graph = exported(model, weights, x)
    found = counts(graph)
    assert found["SparseMLP"] == 1 and all(found.get(kind, 0) == n for kind, n in FOLLOWS[follow].items())
    compiled = core_with(library()).compile_model(graph, "CPU", {**EXACT, "INFERENCE_NUM_THREADS": 2})
    for tokens in (1, 7, 60, 170):
        x = torch.randn(2, tokens, WIDTH, generator=torch.Generator().manual_seed(tokens))
        with torch.no_grad():
            wanted = model(x)
        error = (evaluate(compiled, x) - wanted).norm(dim=-1) / wanted.norm(dim=-1)
        assert float(error.max()) < TOLERANCE[weights]


def test_a_norm_of_another_axis_stays() -> None:
    x = torch.randn(2, 5, WIDTH)
    assert counts(exported(made("norm of another axis"), "keep", x))["MVN"] == 1


def test_names_of_outputs_stay() -> None:
    x = torch.randn(2, 5, WIDTH)
    model = made("norm")
    plain = converted(model, [], x, library())
    assert exported(model, "keep", x).outputs[0].get_names() == plain.outputs[0].get_names()
