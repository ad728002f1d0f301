"""The verb: let greedy decoding and top-k sampling compute only the logits that can be chosen."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.accelerate.head.execution import CERTIFIED, CertifiedGenerate, CertifiedHead, Processors, pack
from lazyneuron.accelerate.head.find import head_inputs, head_of
from lazyneuron.accelerate.plan import check_uncompiled
from lazyneuron.core.arguments import check_batches, described
from lazyneuron.core.errors import ConfigError
from lazyneuron.core.receipt import BlockChange, Receipt
from lazyneuron.core.replay import replays
from lazyneuron.core.timing import least_us
from lazyneuron.core.undo import transaction
from lazyneuron.ops.candidates.operators import operator

VERB = "certify_head_"
LARGEST = (1, 50)  # of which candidates and times are reported: greedy decoding, and transformers' default top_k
MOST_K = {1: 1, 50: 200}  # up to where what was measured for a k is taken to hold
DENSE = "dense"


def certify_head_(
    model: nn.Module,
    batches: Iterable[Any] | None = None,
    *,
    always: bool = False,
    progress: Callable[[str], None] = lambda message: None,
) -> Receipt:
    """Let greedy decoding and top-k sampling skip the entries of the vocabulary that provably are not chosen, in place.

    Within ``model.generate``, where nothing but the largest logits decides the next token, an int8 sketch of the head
    bounds every logit, only those that may be among the largest are computed, by torch's own product, and the others
    are minus infinity: the tokens are those of the whole head. Whatever else needs the logits gets all of them, from
    the whole head: calls outside of ``generate``, beams, assisted decoding, penalties, top_p without top_k,
    ``output_scores``, prompts without ``logits_to_keep``. The parameters are not touched.

    Args:
        model: a transformers model with a language-model head without bias, on the CPU.
        batches: representative inputs, to measure candidates and times on; None for the dummy inputs of transformers.
        always: certify the head also where that is not measured to be faster.
        progress: called with a sentence when something takes long.

    Returns:
        The receipt: whether the head is certified and why, candidates a token and times for the 1 and the 50 largest,
        and the bytes of the sketch.

    Raises:
        ConfigError: no such model, a head that cannot be certified, or one that is so already.
        AssumptionError: weights that are not finite.
        ImplUnavailable: the native kernels are not built here.
        DataError: batches without an item, or that the model cannot run on.

    Cost:
        Memory: a byte for every weight of the head. Time: a pass over the head in float64, and about a second.
    """
    if not callable(progress):
        raise ConfigError(f"progress is a function that takes a sentence, got {described(progress)}; leave it out.")
    if not isinstance(always, bool):
        raise ConfigError(f"always is True or False, got {described(always)}.")
    check_uncompiled(model)
    if batches is not None:
        check_batches(batches)
    operator()
    site = head_of(model)
    hidden = head_inputs(model, site, batches)
    progress(f"Sketching {site.name}")
    packed = pack(site)
    head = CertifiedHead(site, packed)
    details: dict[str, Any] = {
        "entries": packed.sketch.d_hidden,
        "width": packed.sketch.d_in,
        "dtype": str(hidden.dtype).removeprefix("torch."),
        "kept_bytes": site.weight.numel() * site.weight.element_size(),
        "added_bytes": packed.sketch.bytes,
    }
    progress(f"Measuring {site.name}")
    details |= _measured(head, hidden)
    pays = [k for k in LARGEST if (us := details["us"].get(str(k))) and us[CERTIFIED] < us[DENSE]]
    head.most_k = None if always else MOST_K.get(max(pays, default=0), 0)
    certified = always or bool(pays)
    change = BlockChange(
        block=site.name,
        action=CERTIFIED if certified else DENSE,
        reason="Entries that provably are not chosen are not computed."
        if certified
        else details["all_because"].get("1", "Computing all entries is as fast here."),
        details=details if certified else details | {"added_bytes": 0},
    )
    config = {"always": always, "with_batches": batches is not None}
    receipt = Receipt(verb=VERB, config=config, changes=(change,))
    with transaction(model, receipt.id) as change_set:
        change_set.receipt = receipt
        if certified:
            change_set.set(site.module, "forward", head)
            change_set.set(model, "generate", CertifiedGenerate(model, head))
            change_set.set(model, "_get_logits_processor", Processors(model, head))
    return receipt


@replays(VERB, machine=True)
def certify_head_again_(model: nn.Module, receipt: Receipt) -> Receipt:
    """Make a saved certified head again, for this machine and without data.

    Args:
        model: built as the earlier one was.
        receipt: of the earlier :func:`certify_head_`.

    Raises:
        As :func:`certify_head_`.
    """
    return certify_head_(model, always=bool(receipt.config["always"]))


@torch.no_grad()
def _measured(head: CertifiedHead, hidden: Tensor) -> dict[str, Any]:
    """Candidates of each token, and microseconds of one token with all entries and with these."""
    weight = head.site.weight
    rows = hidden[:, None, :]
    counts: dict[str, Any] = {}
    us: dict[str, dict[str, float]] = {}
    reasons: dict[str, str] = {}
    for k in [k for k in LARGEST if k <= len(weight)]:
        found = [head.candidates_of(x, k) for x in rows]
        counts[str(k)] = {"median": statistics.median(found), "mean": statistics.fmean(found), "most": max(found)}
        refused = [
            y for x in rows if isinstance(y := head.largest(x, k), str)
        ]  # the first call of a size compares bits
        if refused:
            reasons[str(k)] = refused[0]
            continue

        def dense(i: int) -> object:
            return nn.functional.linear(rows[i % len(rows)], weight)

        def certified(i: int, k: int = k) -> object:
            return head.largest(rows[i % len(rows)], k)

        times = least_us([dense, certified])
        us[str(k)] = dict(zip((DENSE, CERTIFIED), (round(time, 1) for time in times), strict=True))
    head.forget()
    return {"candidates_by_k": counts, "us": us, "all_because": reasons}
