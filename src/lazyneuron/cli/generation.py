"""What a generation gave and cost: as a record, and on the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from lazyneuron.generate.decoding import Decoding


def decoded_row(name: str, decoding: Decoding, per_token: int) -> dict[str, Any]:
    """One decoding as a row of the record.

    Args:
        name: of the variant.
        decoding: what it gave.
        per_token: bytes that a token reads.
    """
    return {
        "variant": name,
        "tokens": list(decoding.tokens),
        "prefill_ms": decoding.prefill_ms,
        "prefill_tokens_per_s": decoding.prefill_tokens_per_s,
        "token_ms": list(decoding.token_ms),
        "tokens_per_s": decoding.tokens_per_s,
        "computed": decoding.computed,
        "candidates": decoding.candidates,
        "bytes_per_token": per_token,
    }


def formats_of(model: nn.Module) -> dict[str, Any]:
    """What the model's layers are stored as."""
    from lazyneuron.accelerate.quantised.transform import VERB
    from lazyneuron.core.undo import receipts

    found = [receipt.config for receipt in receipts(model) if receipt.verb == VERB]
    return dict(found[-1]) if found else {"weights": "keep", "rest": "keep"}


def head_of(model: nn.Module) -> dict[str, Any] | None:
    """What a certified head costs, saves and did; None where the model's own runs."""
    from lazyneuron.accelerate import head_status
    from lazyneuron.accelerate.head.status import certified_head
    from lazyneuron.accelerate.head.transform import VERB
    from lazyneuron.core.undo import receipts

    if certified_head(model) is None:
        return None
    (change,) = next(receipt for receipt in reversed(receipts(model)) if receipt.verb == VERB).changes
    did = head_status(model)
    facts = {name: change.details[name] for name in ("entries", "added_bytes", "us")}
    return facts | {"certified_calls": did.certified_calls, "fallbacks": dict(did.fallbacks)}


def print_generation(run: dict[str, Any]) -> None:
    """Show what a generation's record says, its text aside."""
    from lazyneuron.cli.screen import print_lines, print_notes, print_table
    from lazyneuron.report.numbers import mebibytes, share, significant

    print_lines("")
    print_table(
        None,
        [
            {
                "": row["variant"],
                "tokens": len(row["tokens"]),
                "tokens/s": significant(row["tokens_per_s"]),
                "prefill tokens/s": significant(row["prefill_tokens_per_s"]),
                "computed": share(row["computed"]),
                **({"entries a token": _entries(row, run["head"])} if run["head"] else {}),
                "MiB a token": mebibytes(row["bytes_per_token"]),
            }
            for row in run["rows"]
        ],
    )
    if run["head"] is not None:
        print_notes([f"The head gave all entries {n} times: {why}" for why, n in run["head"]["fallbacks"].items()])
    if run["agreement"] is not None:
        print_lines(_agreement(run["agreement"]))
    if run["fit"] is not None:
        fit = run["fit"]
        print_lines(
            f"Perplexity of the text: {significant(fit['perplexity'])} a token, over {fit['tokens']} tokens in windows "
            f"of {fit['length']}."
        )
    formats = ", ".join(f"{name} {value}" for name, value in run["formats"].items() if value is not None)
    print_lines(
        f"Loaded in {run['load_s']:.1f} s ({formats}); {mebibytes(run['model_bytes'])} MiB, at most "
        f"{mebibytes(run['peak_bytes'])} MiB of memory with everything; {run['prompt_tokens']} tokens of prompt."
    )
    if run["cut_to_tokens"] is not None:
        print_notes([f"The context ends after {run['cut_to_tokens']} new tokens."])
    print_notes(run["notes"])


def _entries(row: dict[str, Any], head: dict[str, Any]) -> str:
    """Entries of the vocabulary that were computed for a token, of all."""
    from lazyneuron.report.numbers import significant

    return f"{significant(row['candidates'] or head['entries'])} of {head['entries']}"


def _agreement(found: dict[str, Any]) -> str:
    if found["equal"] == found["of"]:
        return f"All {found['of']} tokens are those of the dense evaluation."
    equal = f"{found['equal']} of {found['of']} tokens are those of the dense evaluation"
    why = "a tie of the two likeliest" if found["tie"] else "no tie"
    return f"{equal}, then the first differs ({why})."
