"""What follows a block in the graph becomes part of its operator: the sum with its input, and a layer norm of that sum.

A row is in the first-level cache when its block is done; as nodes of their own a sum and a norm read and write all rows
again, and each costs OpenVINO some microseconds to prepare.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lazyneuron.export.openvino.layout import Norm, PackedOperator, with_input_added


def fused(model: Any, operator: str, node_of: Any, library: Path) -> Any:
    """Take sums and norms behind our operators into them, in place.

    Args:
        model: OpenVINO's.
        operator: the type of our nodes.
        node_of: makes a node of a packed operator, an input and the library.
        library: the extension.

    Returns:
        The same model.
    """
    for node in [one for one in model.get_ordered_ops() if one.get_type_name() == operator]:
        total = _sum_with_input(node)
        if total is None:
            continue
        last, norm = _norm_of(total)
        packed = PackedOperator(attributes=dict(node.get_attributes()), weights=node.input_value(1).get_node().data)
        new = node_of(with_input_added(packed, norm), node.input_value(0), library)
        new.set_friendly_name(last.get_friendly_name())
        new.output(0).set_names(last.output(0).get_names())
        for reader in last.output(0).get_target_inputs():
            reader.replace_source_output(new.output(0))
    model.validate_nodes_and_infer_types()
    return model


def _only_reader(node: Any, kind: str) -> Any:
    """The node of this type that alone reads another's output, or None."""
    readers = list(node.output(0).get_target_inputs())
    found = readers[0].get_node() if len(readers) == 1 else None
    return found if found is not None and found.get_type_name() == kind else None


def _same(a: Any, b: Any) -> bool:
    return (a.get_node().get_name(), a.get_index()) == (b.get_node().get_name(), b.get_index())


def _sum_with_input(node: Any) -> Any:
    """The node that adds a block's own input to its output, or None."""
    total = _only_reader(node, "Add")
    if total is None or node.get_attributes()["d_in"] != node.get_attributes()["d_out"]:
        return None
    given = node.input_value(0)
    fits = any(_same(total.input_value(k), given) for k in (0, 1))
    return total if fits and total.get_attributes().get("auto_broadcast") in ("numpy", "none") else None


def _norm_of(total: Any) -> tuple[Any, Norm | None]:
    """The last node of a layer norm over the features of a sum, and the norm; without one the sum itself."""
    norm = _only_reader(total, "MVN")
    if norm is None or not _over_features(norm):
        return total, None
    width, epsilon = total.get_output_partial_shape(0)[-1].get_length(), float(norm.get_attributes()["eps"])
    last, weight, bias = norm, np.ones(width, np.float32), np.zeros(width, np.float32)
    scaled = _with_constant(norm, "Multiply", width)
    if scaled is not None:
        last, weight = scaled
        shifted = _with_constant(last, "Add", width)
        if shifted is not None:
            last, bias = shifted
    return last, Norm(weight=weight, bias=bias, epsilon=epsilon)


def _over_features(norm: Any) -> bool:
    about, axes = norm.get_attributes(), norm.input_value(1).get_node()
    if axes.get_type_name() != "Constant" or not about["normalize_variance"]:
        return False
    rank = norm.get_input_partial_shape(0).rank
    last = {-1} | ({rank.get_length() - 1} if rank.is_static else set())
    return str(about["eps_mode"]).upper() == "INSIDE_SQRT" and axes.data.size == 1 and int(axes.data.flat[0]) in last


def _with_constant(node: Any, kind: str, width: int) -> tuple[Any, Any] | None:
    """The node that alone reads another's output and joins it with one number a feature, and these numbers."""
    found = _only_reader(node, kind)
    if found is None:
        return None
    other = found.input_value(1 if _same(found.input_value(0), node.output(0)) else 0).get_node()
    if other.get_type_name() != "Constant" or other.data.size != width or other.data.shape[-1:] != (width,):
        return None
    return found, np.asarray(other.data, dtype=np.float32).reshape(-1)
