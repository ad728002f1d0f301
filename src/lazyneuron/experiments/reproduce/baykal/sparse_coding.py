"""A neighbour of the paper: a sparse-coding encoder as the router, beside LSH at equal cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lazyneuron.experiments.experiment import Finding, Request, band, published
from lazyneuron.experiments.reproduce.baykal.samples import CLOSED_FORM, SOURCE, Sample, draw, mean_squared_error
from lazyneuron.route import DSM, HyperplaneLSH, SparseCoding, learn_dictionary

_BITS, _SHARE = 8, 0.1  # of a table; of the penalty in the rows' mean length
_DIFFERS = (
    f"The paper leaves open which routers serve besides LSH. {CLOSED_FORM} Cost is that of routing: an LSH model has "
    f"as many tables of {_BITS} hyperplanes as take the FLOPs of the encoder, and one constant a bucket. The encoder's "
    "model has a weight for each atom, times the atom's entry of the code or times 1; half the atoms may answer. "
    "The dictionary is learned from at most 4000 of the rows, without their targets."
)


def mixtures(request: Request, seed: int) -> Sample:
    """Sums of 3 of 32 hidden atoms in 16 dimensions; the target depends on which pairs of atoms meet."""
    g = torch.Generator().manual_seed(seed)
    rows, tests = (2000 if request.quick else 20000), 4000
    hidden = torch.nn.functional.normalize(torch.randn(32, 16, generator=g), dim=1)
    chosen = torch.rand(rows + tests, 32, generator=g).topk(3, dim=1).indices
    on = torch.zeros(rows + tests, 32).scatter_(1, chosen, 1.0)
    x = (on * (0.5 + torch.rand(rows + tests, 32, generator=g))) @ hidden
    single, pairs = torch.randn(32, generator=g), torch.randn(32, 32, generator=g).triu(1)
    y = (on @ single + (on @ pairs * on).sum(1))[:, None].double()
    return _standard(x, y, rows)


def digits(request: Request, seed: int) -> Sample:
    """scikit-learn's digits, one column a class; a fifth of them, by the seed, is for testing."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    x = torch.from_numpy(pixels).float()[order]
    y = torch.nn.functional.one_hot(torch.from_numpy(labels).long()[order], 10).double()
    return _standard(x, y, len(x) * 4 // 5)


def polynomial(request: Request, seed: int) -> Sample:
    """The paper's polynomial on the cube, which has no sparse structure."""
    found = draw("polynomial", rows=2000 if request.quick else 20000, tests=4000, seed=seed)
    return _standard(torch.cat([found.x, found.x_test]), torch.cat([found.y, found.y_test]), len(found.x))


DATA: dict[str, Callable[[Request, int], Sample]] = {
    "sparse mixtures": mixtures,
    "digits": digits,
    "polynomial": polynomial,
}


def _standard(x: Tensor, y: Tensor, rows: int) -> Sample:
    """With inputs centred on the training rows, of mean square 1 an entry."""
    mean = x[:rows].mean(0)
    x = (x - mean) / (x[:rows] - mean).square().mean().sqrt()
    return Sample(x=x[:rows], y=y[:rows], x_test=x[rows:], y_test=y[rows:])


def dictionary_of(sample: Sample, *, atoms: int, seed: int, quick: bool = False) -> tuple[Tensor, float]:
    """A dictionary of the first rows, and the penalty that it was learned with."""
    penalty = _SHARE * float(sample.x.norm(dim=1).mean())
    return learn_dictionary(sample.x[: 500 if quick else 4000], atoms=atoms, penalty=penalty, seed=seed), penalty


def coding_error(sample: Sample, learned: tuple[Tensor, float], *, steps: int, weighted: bool) -> float:
    """Test error over the variance of a model on sparse codes."""
    dictionary, penalty = learned
    router = SparseCoding(dictionary, active=len(dictionary) // 2, penalty=penalty, steps=steps, weighted=weighted)
    return _error(DSM(router, torch.zeros(sample.y.shape[1], len(dictionary)), activation="one"), sample)


def lsh_error(sample: Sample, *, products: int, seed: int) -> float:
    """The same of LSH that multiplies an input by at most so many vectors."""
    router = HyperplaneLSH(sample.x.shape[1], _BITS, tables=tables(products), offset=1.0, seed=seed)
    return _error(DSM(router, torch.zeros(sample.y.shape[1], router.width), activation="one"), sample)


def tables(products: int) -> int:
    """Tables of LSH for so many products with a vector."""
    return max(1, products // _BITS)


def _error(model: DSM, sample: Sample) -> float:
    variance = float((sample.y_test - sample.y_test.mean(0)).square().mean())
    return mean_squared_error(model, sample) / variance


def run(request: Request) -> Finding:
    """Every data set, number of steps and router, with every seed."""
    steps, atoms = ((1, 3), 16) if request.quick else ((1, 3, 10), 64)
    rows: list[dict[str, Any]] = []
    curves = []
    for number, (name, make) in enumerate(DATA.items()):
        samples = [make(request, seed) for seed in range(request.seeds)]
        learned = [
            dictionary_of(sample, atoms=atoms, seed=seed, quick=request.quick) for seed, sample in enumerate(samples)
        ]
        products = [atoms * (2 * n - 1) for n in steps]
        models: dict[str, Callable[[Sample, int, int], float]] = {
            "sparse code, weighted": lambda sample, seed, n, learned=learned: coding_error(  # type: ignore[misc]
                sample, learned[seed], steps=n, weighted=True
            ),
            "sparse code, support": lambda sample, seed, n, learned=learned: coding_error(  # type: ignore[misc]
                sample, learned[seed], steps=n, weighted=False
            ),
            "LSH": lambda sample, seed, n: lsh_error(sample, products=atoms * (2 * n - 1), seed=seed),
        }
        found = {
            label: [[measure(sample, seed, n) for n in steps] for seed, sample in enumerate(samples)]
            for label, measure in models.items()
        }
        curves += [band(f"{name}: {label}", x=products, runs=runs) for label, runs in found.items()]
        rows += [
            {
                "data": name,
                "products with a vector": p,
                "shrinkage steps": n,
                "LSH tables": tables(p),
                **{f"{label} MSE": statistics.mean(run[k] for run in runs) for label, runs in found.items()},
                "paper": None,
            }
            for k, (n, p) in enumerate(zip(steps, products, strict=True))
        ]
        request.advance((number + 1) / len(DATA), name)
    return Finding(
        rows=rows,
        curves=curves,
        sentence=_sentence(rows),
        axes=("products of an input with a vector, to route it", "mean squared error over the variance"),
        facts={"atoms": atoms, "bits of a table": _BITS, "seeds": request.seeds},
        logarithmic="xy",
    )


def _sentence(rows: list[dict[str, Any]]) -> str:
    parts = []
    for name in dict.fromkeys(row["data"] for row in rows):
        last = [row for row in rows if row["data"] == name][-1]
        code = min(last["sparse code, weighted MSE"], last["sparse code, support MSE"])
        parts.append(f"{code / last['LSH MSE']:.2f} on {name}")
    return f"Error of the better sparse code over that of LSH at the largest equal cost: {', '.join(parts)}."


EXPERIMENT = published(
    name="baykal-sparse-coding",
    title="A sparse-coding encoder as the router, beside LSH",
    source=f"{SOURCE}, section 3; the router is ours",
    differs=_DIFFERS,
    run=run,
)
