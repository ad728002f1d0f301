"""What is found in each architecture, and that replacing it leaves the whole model's output unchanged."""

import pytest
import torch
import torch.nn.functional as F

from lazyneuron.blocks import find, splice_
from lazyneuron.core.undo import restore_, transaction
from tests.blocks.architectures import KNOWN

FUNCTIONS = {
    "relu": torch.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda z: 0.5 * z * (1 + torch.tanh(0.7978845608028654 * (z + 0.044715 * z**3))),
    "quick_gelu": lambda z: z / (1 + torch.exp(-1.702 * z)),
    "silu": lambda z: z / (1 + torch.exp(-z)),
    "squared_relu": lambda z: torch.relu(z) ** 2,
}

pytestmark = pytest.mark.filterwarnings("ignore")  # other libraries' own


class ByHand:
    """The block's formula; counts its calls."""

    def __init__(self, block, kind):
        self.block, self.function, self.calls = block, FUNCTIONS[kind], 0

    def __call__(self, x):
        self.calls += 1
        up, gate, down = self.block.up, self.block.gate, self.block.down

        def apply(site, x):
            y = x @ site.weight.t()
            return y if site.bias is None else y + site.bias

        h = self.function(apply(up, x)) if gate is None else self.function(apply(gate, x)) * apply(up, x)
        return apply(down, h)


def tensors(output):
    leaves = torch.utils._pytree.tree_leaves(output)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


@torch.no_grad()
def outputs(model, batch):
    return tensors(model(**batch))


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_found(name):
    known = KNOWN[name]
    found = find(known.model())
    assert len(found.blocks) == known.count
    assert len(found.rejected) == known.rejected
    assert len({block.name for block in found.blocks}) == known.count
    for block in found.blocks:
        assert block.activation.kind == known.activation
        assert (block.d_in, block.d_hidden, block.d_out) == known.widths
        assert (block.gate is not None) == known.gated
        assert (block.container is not None) == known.whole
        assert (block.site is not None) == known.replaceable
        assert block.refusal is None


@pytest.mark.parametrize("name", [name for name, known in KNOWN.items() if known.count])
def test_replacing_all_blocks_leaves_the_model_as_it_is(name):
    known = KNOWN[name]
    model = known.model()
    before, keys = outputs(model, known.batch), list(model.state_dict())
    classes = [type(module) for module in model.modules()]
    blocks = find(model).blocks
    runs = [ByHand(block, known.activation) for block in blocks]
    with transaction(model, "spliced") as change:
        for block, run in zip(blocks, runs, strict=True):
            splice_(change, block, run)
    for new, old in zip(outputs(model, known.batch), before, strict=True):
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-4)
    assert all(run.calls for run in runs) or name == "switch"  # a router may leave an expert without a token
    assert any(run.calls for run in runs)
    assert list(model.state_dict()) == keys
    assert [type(module) for module in model.modules()] == classes
    restore_(model, "spliced")
    assert all(map(torch.equal, outputs(model, known.batch), before))
    assert not any("forward" in module.__dict__ for module in model.modules())


@pytest.mark.parametrize("name", [name for name, known in KNOWN.items() if known.count])
def test_declining_is_the_original_path_bitwise(name):
    known = KNOWN[name]
    model = known.model()
    expected = gradients(model, known.batch)
    before = outputs(model, known.batch)
    with transaction(model, "spliced") as change:
        for block in find(model).blocks:
            splice_(change, block, lambda x: None)
    if not isinstance(model, torch.nn.TransformerEncoder):  # its fused path rounds otherwise
        assert all(map(torch.equal, outputs(model, known.batch), before))
    for new, old in zip(gradients(model, known.batch), expected, strict=True):
        assert (new is None and old is None) or torch.equal(new, old)


def gradients(model, batch):
    """Gradients of a forward in training mode, dropout included."""
    model.train()
    torch.manual_seed(3)
    sum(y.square().mean() for y in tensors(model(**batch)) if y.requires_grad).backward()
    collected = [p.grad for p in model.parameters()]
    model.zero_grad(set_to_none=True)
    model.eval()
    return collected
