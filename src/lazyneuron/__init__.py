"""Run only the neurons that fire: measure, induce and exactly exploit activation sparsity in PyTorch models."""

from typing import TYPE_CHECKING

from lazyneuron.core.lazy_names import import_on_use

if TYPE_CHECKING:
    from lazyneuron.accelerate.head.status import head_status
    from lazyneuron.accelerate.head.transform import certify_head_
    from lazyneuron.accelerate.plan import plan_acceleration
    from lazyneuron.accelerate.status import refresh_, status
    from lazyneuron.accelerate.transform import accelerate_
    from lazyneuron.blocks.find import find_blocks
    from lazyneuron.core.receipt import Receipt
    from lazyneuron.core.undo import receipts, restore_
    from lazyneuron.explain.report import explain
    from lazyneuron.export.verb import export
    from lazyneuron.generate.load import load_quantised
    from lazyneuron.induce.compact import compact_
    from lazyneuron.induce.project import project_
    from lazyneuron.induce.recipes.doubly_biased import DoublyBiased
    from lazyneuron.induce.recipes.relufy import Relufy
    from lazyneuron.induce.sparsify import sparsify_
    from lazyneuron.measure.measurement import measure
    from lazyneuron.pretrained import from_pretrained
    from lazyneuron.route.ffn import RouteFFN
    from lazyneuron.save import load_, save

__version__ = "0.1.0"

__all__ = [
    "DoublyBiased",
    "Receipt",
    "Relufy",
    "RouteFFN",
    "accelerate_",
    "certify_head_",
    "compact_",
    "explain",
    "export",
    "find_blocks",
    "from_pretrained",
    "head_status",
    "load_",
    "load_quantised",
    "measure",
    "plan_acceleration",
    "project_",
    "receipts",
    "refresh_",
    "restore_",
    "save",
    "sparsify_",
    "status",
]

import_on_use(
    __name__,
    {
        "DoublyBiased": "lazyneuron.induce.recipes.doubly_biased",
        "Receipt": "lazyneuron.core.receipt",
        "Relufy": "lazyneuron.induce.recipes.relufy",
        "RouteFFN": "lazyneuron.route.ffn",
        "accelerate_": "lazyneuron.accelerate.transform",
        "certify_head_": "lazyneuron.accelerate.head.transform",
        "compact_": "lazyneuron.induce.compact",
        "explain": "lazyneuron.explain.report",
        "export": "lazyneuron.export.verb",
        "find_blocks": "lazyneuron.blocks.find",
        "from_pretrained": "lazyneuron.pretrained",
        "head_status": "lazyneuron.accelerate.head.status",
        "load_": "lazyneuron.save",
        "load_quantised": "lazyneuron.generate.load",
        "measure": "lazyneuron.measure.measurement",
        "plan_acceleration": "lazyneuron.accelerate.plan",
        "project_": "lazyneuron.induce.project",
        "receipts": "lazyneuron.core.undo",
        "refresh_": "lazyneuron.accelerate.status",
        "restore_": "lazyneuron.core.undo",
        "save": "lazyneuron.save",
        "sparsify_": "lazyneuron.induce.sparsify",
        "status": "lazyneuron.accelerate.status",
    },
)
