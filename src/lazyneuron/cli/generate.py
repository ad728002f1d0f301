"""``lazyneuron generate``: continue a prompt with a language model that is quantised while it is read."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lazyneuron.cli.options import JsonFile, ModelFolder, Seed
from lazyneuron.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lazyneuron.core.receipt import Receipt

_WINDOW = 512  # tokens in which a text is predicted


def generate(
    model: Annotated[str, typer.Argument(help="A local folder of a causal language model or an encoder-decoder.")],
    *,
    prompt: Annotated[str | None, typer.Option("--prompt", help="The text to continue.")] = None,
    prompt_file: Annotated[Path | None, typer.Option("--prompt-file", help="A UTF-8 file with that text.")] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="Of the MLP blocks: keep, int8 or int4 (int8, or as saved).")
    ] = None,
    rest: Annotated[
        str | None, typer.Option("--rest", help="Of all other linear layers: keep, int8 or int4 (int8, or as saved).")
    ] = None,
    group: Annotated[
        int | None, typer.Option("--group", help="Weights that share a scale in int4: 32, 64 or 128 (32).")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", help="At most so many tokens.", min=1)] = 200,
    against: Annotated[
        str | None, typer.Option("--against", help="dense: decode once more with every neuron, and compare.")
    ] = None,
    head: Annotated[
        str | None,
        typer.Option("--head", help="certified: compute only entries that may be chosen; --rest is keep."),
    ] = None,
    text: Annotated[
        Path | None, typer.Option("--text", help="A UTF-8 file: tell the model's perplexity on it, as it is quantised.")
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Draw tokens at random instead of the likeliest.")] = False,
    temperature: Annotated[float | None, typer.Option("--temperature", help="Of --sample (1).")] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", help="Of --sample: share of probability (1).")] = None,
    seed: Seed = 0,
    json_file: JsonFile = None,
    out: ModelFolder = None,
) -> None:
    """Continue a prompt with a language model that is quantised while it is read, and say what a token cost."""
    from lazyneuron.cli.generation import print_generation
    from lazyneuron.cli.output import check_writable, write_record
    from lazyneuron.cli.saved import check_out
    from lazyneuron.core.record import Record

    _check(against, sample=sample, temperature=temperature, top_p=top_p)
    rest = _rest(head, rest)
    begun = _text(prompt, prompt_file)
    check_writable(json_file, folder=out)
    ready = _Ready(Path(model), begun, max_new_tokens, formats=(weights, rest, group))
    ids = None if text is None else ready.ids_of(text)
    check_out(Path(model), out)
    ready.load(certified=head is not None)
    run = _run(ready, sample=sample, temperature=temperature, top_p=top_p, seed=seed, dense=against is not None)
    run["fit"] = None if ids is None else _fit(ready, ids)
    print_generation(run)
    write_record(json_file, Record(kind="generate", data=run, seed=seed))
    if out is not None:
        _save(ready, out)


def _check(against: str | None, *, sample: bool, temperature: float | None, top_p: float | None) -> None:
    if against not in (None, "dense"):
        raise ConfigError(f"--against is dense, got {against!r}.")
    if not sample and (temperature is not None or top_p is not None):
        raise ConfigError("--temperature and --top-p are for --sample; pass it too.")
    if temperature is not None and not 0 < temperature < float("inf"):
        raise ConfigError(f"--temperature is a positive number, got {temperature}.")
    if top_p is not None and not 0 < top_p <= 1:
        raise ConfigError(f"--top-p is a share above 0, at most 1, got {top_p}.")


def _rest(head: str | None, rest: str | None) -> str | None:
    """What ``--rest`` is beside ``--head``."""
    if head is None:
        return rest
    if head != "certified":
        raise ConfigError(f"--head is certified, got {head!r}.")
    if rest not in (None, "keep"):
        raise ConfigError(f"--head certified computes with the head's own weights, got --rest {rest}; leave it out.")
    return "keep"


def _text(prompt: str | None, file: Path | None) -> str:
    """The prompt, from one of the two options."""
    if (prompt is None) == (file is None):
        raise ConfigError("Pass the prompt as --prompt TEXT or in --prompt-file FILE, one of the two.")
    if file is None:
        assert prompt is not None
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise DataError("The prompt is not UTF-8; write it into a UTF-8 file for --prompt-file.") from error
        return prompt
    return _utf8(file)


def _utf8(file: Path) -> str:
    """What a UTF-8 file says."""
    from lazyneuron.data.lines import unreadable

    try:
        raw = file.read_bytes()
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start}; convert the file to UTF-8."
        ) from error
    except OSError as error:
        raise unreadable(file, error) from error


class _Ready:
    """The folder, its tokenizer and the prompt, checked before any weight is read; then the model."""

    model: nn.Module
    receipt: Receipt | None
    load_s: float

    def __init__(
        self, folder: Path, text: str, max_new_tokens: int, *, formats: tuple[str | None, str | None, int | None]
    ) -> None:
        from lazyneuron.accelerate.quantised.transform import quantisation_of
        from lazyneuron.cli.model import quiet, tokenizer_of
        from lazyneuron.generate.folder import language_model_class, read_config, transformers_here
        from lazyneuron.generate.prompt import context_of, read_prompt

        quantisation_of(formats[0] or "int8", formats[1] or "int8", 32 if formats[2] is None else formats[2])
        if not folder.is_dir():
            raise ConfigError(
                f"There is no folder {str(folder)!r}: MODEL is a local folder of a language model; download it first, "
                "nothing is downloaded here."
            )
        transformers = transformers_here()
        self.folder, self.text, self.formats = folder, text, formats
        with quiet(transformers):
            config = read_config(folder)
            language_model_class(config, folder)
            self.tokenizer = tokenizer_of(transformers, folder)
        if self.tokenizer is None:
            raise DataError(f"{folder} has no tokenizer, so it cannot read a prompt; save the model's own beside it.")
        self.inputs: dict[str, Tensor]
        self.inputs, self.new = read_prompt(self.tokenizer, text, config, max_new_tokens=max_new_tokens)
        self.asked = max_new_tokens
        self.continues = not config.is_encoder_decoder
        self.context = context_of(config)

    def ids_of(self, file: Path) -> Tensor:
        """The tokens of a text to be predicted, int64 (tokens,)."""
        if not self.continues:
            raise ConfigError(f"--text is for models that continue a text; {self.folder} is an encoder-decoder.")
        ids: Tensor = self.tokenizer(_utf8(file), return_tensors="pt")["input_ids"][0].long()
        if len(ids) < 2:
            raise DataError(f"{file} has {len(ids)} tokens for this model, of which none can be predicted; pass more.")
        return ids

    def load(self, *, certified: bool) -> None:
        """Read and quantise the model, and certify its head where that is wanted."""
        from lazyneuron.accelerate import certify_head_
        from lazyneuron.accelerate.head.status import certified_head
        from lazyneuron.cli.model import quiet
        from lazyneuron.cli.screen import status
        from lazyneuron.generate.folder import transformers_here
        from lazyneuron.generate.load import load_quantised

        weights, rest, group = self.formats
        before = time.perf_counter()
        with quiet(transformers_here()), status(f"Loading {self.folder}") as tell:
            self.model, self.receipt = load_quantised(
                self.folder,
                weights=weights,  # type: ignore[arg-type]
                rest=rest,  # type: ignore[arg-type]
                group=group,
                progress=tell,
            )
            if certified and certified_head(self.model) is None:
                batches = [dict(self.inputs)] if self.continues else None
                certify_head_(self.model, batches, always=True, progress=tell)
        self.load_s = time.perf_counter() - before


def _run(
    ready: _Ready, *, sample: bool, temperature: float | None, top_p: float | None, seed: int, dense: bool
) -> dict[str, Any]:
    """Decode, show the text meanwhile, decode densely if that is wanted, and gather what is reported."""
    from lazyneuron.cli.generation import decoded_row, formats_of, head_of
    from lazyneuron.cli.model import quiet
    from lazyneuron.cli.screen import status, text_stream
    from lazyneuron.core.memory import peak_bytes
    from lazyneuron.generate.decoding import compare, decode, settings_for
    from lazyneuron.generate.folder import transformers_here
    from lazyneuron.generate.traffic import model_bytes, traffic
    from lazyneuron.generate.words import Words

    settings = settings_for(ready.model, max_new_tokens=ready.new, sample=sample, temperature=temperature, top_p=top_p)
    with quiet(transformers_here()):
        reads = traffic(ready.model, ready.inputs)  # which also warms up what the first tokens would wait for
        with text_stream() as show:
            if ready.continues:
                show(ready.text)
            words = Words(ready.tokenizer, show)
            sparse = decode(ready.model, ready.inputs, settings, seed=seed, on_tokens=words.add)
            words.end()
        peak = peak_bytes()
        rows = [decoded_row("sparse", sparse, reads.bytes_per_token(sparse.computed))]
        agreement = None
        if dense:
            with status("Decoding once more, with every neuron"):
                reads = traffic(ready.model, ready.inputs, dense=True)
                other = decode(ready.model, ready.inputs, settings, seed=seed, dense=True)
                agreement = dataclasses.asdict(compare(ready.model, ready.inputs, sparse, other))
            rows.append(decoded_row("dense", other, reads.bytes_per_token(None)))
    config = formats_of(ready.model)
    return {
        "model": str(ready.folder),
        "formats": {name: config.get(name) for name in ("weights", "rest", "group")},
        "prompt_tokens": sparse.prompt_tokens,
        "cut_to_tokens": ready.new if ready.new < ready.asked else None,
        "text": words.text,
        "rows": rows,
        "agreement": agreement,
        "head": head_of(ready.model),
        "load_s": ready.load_s,
        "peak_bytes": peak,
        "model_bytes": model_bytes(ready.model),
        "notes": [] if ready.receipt is None else list(ready.receipt.notes),
    }


def _fit(ready: _Ready, ids: Tensor) -> dict[str, Any]:
    """How well the model predicts a text."""
    from lazyneuron.cli.model import quiet
    from lazyneuron.cli.screen import status
    from lazyneuron.generate.folder import transformers_here
    from lazyneuron.generate.perplexity import fit_of

    with quiet(transformers_here()), status("Predicting the text") as tell:
        length = min(_WINDOW, ready.context or _WINDOW)
        found = fit_of(ready.model, ids, length=length, advance=lambda share: tell(f"Predicting the text, {share:.0%}"))
    return dataclasses.asdict(found)


def _save(ready: _Ready, out: Path) -> None:
    from lazyneuron.cli.model import LoadedModel
    from lazyneuron.cli.saved import save_folder
    from lazyneuron.cli.screen import print_lines, status

    with status(f"Saving to {out}"):
        name = save_folder(LoadedModel(name=str(ready.folder), model=ready.model, folder=ready.folder), out)
    print_lines(f"Saved to {out}; read it as {name}")
