"""Receipts survive JSON, and nothing else passes for one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyneuron.core.errors import CheckpointError
from lazyneuron.core.receipt import BlockChange, Receipt

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FACTS = st.dictionaries(st.text(), VALUES, max_size=4)
CHANGES = st.builds(BlockChange, block=st.text(), action=st.text(), reason=st.text(), details=FACTS)


@given(verb=st.text(), config=FACTS, changes=st.lists(CHANGES, max_size=3), notes=st.lists(st.text(), max_size=3))
def test_a_receipt_comes_back_from_json_equal(verb, config, changes, notes):
    receipt = Receipt(verb=verb, config=config, changes=tuple(changes), notes=tuple(notes))
    again = Receipt.from_json(receipt.to_json())
    assert again == receipt
    assert isinstance(again.changes, tuple) and isinstance(again.notes, tuple)


def small():
    change = BlockChange(block="0", action="dense", reason="It is faster.", details={"dense_ms": 0.5})
    return Receipt(verb="accelerate_", config={"impl": "auto"}, changes=(change,), notes=("One block.",))


def test_each_receipt_has_its_own_id():
    assert small().id != small().id


def test_every_truncation_is_refused():
    text = small().to_json()
    for end in range(len(text)):
        with pytest.raises(CheckpointError, match="not a lazyneuron receipt"):
            Receipt.from_json(text[:end])


@pytest.mark.parametrize("text", ["", "null", "3", "[]", '"text"', "{}", "\x00", "[" * 100_000, "{]"])
def test_other_text_is_refused(text):
    with pytest.raises(CheckpointError, match="not a lazyneuron receipt"):
        Receipt.from_json(text)


@pytest.mark.parametrize("key", ["format", "verb", "config", "changes", "notes"])
def test_a_missing_part_is_refused(key):
    raw = json.loads(small().to_json())
    del raw[key]
    with pytest.raises(CheckpointError):
        Receipt.from_json(json.dumps(raw))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 2),
        ("changes", None),
        ("changes", ["x"]),
        ("changes", [{"block": "0"}]),
        ("notes", 3),
        ("extra", 1),
        ("verb", 3),
        ("config", [1]),
        ("id", None),
        ("notes", [3]),
        ("changes", [{"block": 0, "action": "a", "reason": "r"}]),
    ],
)
def test_a_wrong_part_is_refused(key, value):
    raw = {**json.loads(small().to_json()), key: value}
    with pytest.raises(CheckpointError):
        Receipt.from_json(json.dumps(raw))
