"""F1 to F3: spectra and sensitivities of the families, beside the bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lazyneuron.experiments.experiment import Finding, Request
from lazyneuron.experiments.reproduce.awasthi.setting import ABSOLUTE, curve, experiment_of, facts_of
from lazyneuron.learn import (
    SparseActivationNet,
    average_sensitivity,
    noise_sensitivity,
    sensitivity_bounds,
    spectrum,
    weight_by_degree,
)
from lazyneuron.learn.bounds import as_adkm, tail_bound_width
from lazyneuron.learn.instances import (
    Instance,
    code_net,
    code_table,
    gated_net,
    golay_code,
    hamming_code,
    modulus_net,
    parity_net,
    random_sparse_net,
)


def tails(request: Request) -> Finding:
    """F1: tail(d) (d + 1) / (4 k^2 W^2) for every family."""
    n = 8 if request.quick else 14
    codes = [hamming_code(3)] if request.quick else [hamming_code(4), golay_code()]
    wide = modulus_net(np.full(n, 1 / math.sqrt(n)))
    families: list[tuple[str, Instance, Any]] = [
        ("scaled parity, p = 6", parity_net(6, norm=1.0, n=n), None),
        ("gated, k = 1", gated_net(3, n - 3, seed=0), None),
        *((f"code {c.n}", code_net(c, norm=1.0, seed=0), c) for c in codes),
        ("random, k = 3", random_sparse_net(min(n, 12), 60 if request.quick else 200, k=3, seed=0), None),
        ("modulus", wide, None),
    ]
    rows: list[dict[str, Any]] = []
    curves = []
    for number, (name, one, code) in enumerate(families):
        request.advance(number / len(families), name)
        facts = facts_of(one, None if code is None else code_table(code, one))
        scaled = facts.tails * np.arange(1, len(facts.tails) + 1) / facts.scale
        rows.append(
            {
                "family": name,
                "n": one.net.n,
                "s": one.net.s,
                "k": one.max_active,
                "AS / 4k^2W^2": facts.sensitivity / facts.scale,
                "peak": float(scaled.max()),
                "at degree": int(scaled.argmax()),
            }
        )
        curves.append(curve(name, range(len(scaled)), scaled))
    phi = sensitivity_bounds(wide.net).phi
    fourth = [tail_bound_width(d, 1, norm=1.0, phi_value=phi).value * (d + 1) / 4 for d in range(1, n)]
    shown = [(d, v) for d, v in zip(range(1, n), fourth, strict=True) if v <= 1.6]
    curves.append(curve("D3", [0, n], [1, 1]))
    if shown:
        curves.append(curve("D4 of the modulus", *zip(*shown, strict=True)))
    worst = max(float(r["peak"]) for r in rows)
    finding = (
        f"No family exceeds D3: the largest value is {worst:.6g}, by the scaled parity at degree p - 1 = 5, "
        "which attains it; "
        f"every other family stays below {max(float(r['peak']) for r in rows[1:]):.2f}. {ABSOLUTE}"
    )
    axes = ("degree d", "tail(d) (d + 1) / (4 k^2 W^2)")
    return Finding(rows=rows, curves=curves, sentence=finding, axes=axes, facts={"n": n, "seeds": request.seeds})


def sensitivity_of_k(request: Request) -> Finding:
    """F2: AS and NS as k grows."""
    ks = [1, 2, 4] if request.quick else [1, 2, 4, 8, 16]
    makers: dict[str, Callable[[int, int], Instance]] = {
        "aligned": lambda k, seed: gated_net(3, 5, k=k, seed=seed),
        "independent": lambda k, seed: gated_net(3, 5, k=k, mode="independent", seed=seed),
        "parity": lambda k, seed: parity_net(3, k=k, n=8),
    }
    rows, curves = [], []
    for at, (name, make) in enumerate(makers.items()):
        ratios = []
        for k in ks:
            request.advance((at + ks.index(k) / len(ks)) / len(makers), f"{name}, k = {k}")
            found = [facts_of(make(k, seed)) for seed in range(1 if name == "parity" else request.seeds)]
            ratios.append(float(np.mean([f.sensitivity / f.scale for f in found])))
            noise = float(np.mean([noise_sensitivity(f.weights, 0.9) for f in found]))
            mean = float(np.mean([f.sensitivity for f in found]))
            rows.append({"family": name, "k": k, "AS": mean, "AS / 4k^2W^2": ratios[-1], "NS at 0.9": noise})
        curves.append(curve(name, ks, ratios))
    drop = curves[1]["y"][0] / curves[1]["y"][-1]
    finding = (
        f"AS grows like k^2 where the k neurons agree (the ratio to 4 k^2 W^2 stays {curves[0]['y'][0]:.4f} for "
        "aligned tables "
        f"and {curves[2]['y'][0]:.4f} for parities) and about like k where they are independent (the ratio "
        f"falls {drop:.1f}-fold "
        f"for k = 1 to {ks[-1]}). {ABSOLUTE}"
    )
    axes = ("active neurons k", "AS / (4 k^2 W^2)")
    return Finding(
        rows=rows, curves=curves, sentence=finding, axes=axes, logarithmic="xy", facts={"seeds": request.seeds}
    )


def sensitivity_of_width(request: Request) -> Finding:
    """F3: AS as the width grows at fixed k, with certificates, beside dense networks."""
    n, k = (8, 2) if request.quick else (12, 2)
    names = ("AS, sparse", "C3", "C2", "C1", "C0", "AS, dense")
    rows: list[dict[str, Any]] = []
    lines: dict[str, list[float]] = {name: [] for name in names}
    depths = range(1, 4 if request.quick else 7)
    for b in depths:
        request.advance((b - 1) / len(depths), f"s = {k * 2**b}")
        one = gated_net(b, n - b, k=k, seed=0)
        net = one.net.scaled(1 / one.net.norms()[0])
        ladder = sensitivity_bounds(net, k=k)
        rows.append({"s": net.s, "k": k, **_row(net, ladder)})
        rows[-1]["AS, dense"] = _dense(n, net.s)
        for name in names:
            lines[name].append(rows[-1][name])
    for j in range(3 if request.quick else 5):  # k at fixed s
        one = gated_net((3 if request.quick else 5) - j, n - 6, k=2**j, seed=0)
        net = one.net.scaled(1 / one.net.norms()[0])
        rows.append({"s": net.s, "k": 2**j, **_row(net, sensitivity_bounds(net, k=2**j))})
    widths = [k * 2**b for b in depths]
    finding = (
        f"At k = {k} and W = 1 the certificate C0 is {lines['C0'][0]:.0f} at every width and AS stays below it "
        f"({lines['AS, sparse'][0]:.3g} at s = {widths[0]}, {lines['AS, sparse'][-1]:.3g} at s = {widths[-1]}), "
        "while AS of dense "
        f"networks grows with s from {lines['AS, dense'][0]:.3g} to {lines['AS, dense'][-1]:.3g}; the published "
        "route with explicit "
        f"constants gives {rows[len(widths) - 1]['ADKM, explicit']:.3g} at the largest width. {ABSOLUTE}"
    )
    return Finding(
        rows=rows,
        curves=[curve(name, widths, lines[name]) for name in names],
        sentence=finding,
        axes=("neurons s", "average sensitivity at W = 1"),
        logarithmic="xy",
        facts={"n": n, "seeds": request.seeds},
    )


def _row(net: SparseActivationNet, ladder: Any) -> dict[str, Any]:
    bias = net.norms()[1]
    return {
        "AS, sparse": average_sensitivity(weight_by_degree(spectrum(net.table()))),
        "C3": ladder.c3,
        "C2": ladder.c2,
        "C1": ladder.c1,
        "C0": ladder.c0,
        "ADKM, explicit": as_adkm(ladder.k, ladder.norm, bias=bias, n=net.n, s=net.s).value,
        "AS, dense": "-",
    }


def _dense(n: int, s: int) -> float:
    """AS of random unit weights without thresholds."""
    net = random_sparse_net(n, s, threshold=0.0, seed=0).net
    return average_sensitivity(weight_by_degree(spectrum(net.table())))


EXPERIMENTS = (
    experiment_of(1, "F1: tails of all families against D3 and D4", tails),
    experiment_of(2, "F2: sensitivity as more neurons are active", sensitivity_of_k),
    experiment_of(3, "F3: sensitivity as networks become wider", sensitivity_of_width),
)
