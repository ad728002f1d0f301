"""How much work the demo does."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The demo's numbers; :meth:`quick` is a smaller run that says so.

    Attributes:
        seed: of every random choice.
        quick: whether this is the smaller run.
        held_out_lines: lines on which density and quality are measured.
        held_out_tokens: longest held-out line; longer ones are cut.
        kind_lines: training lines that are looked for of each kind of text.
        train_lines: lines to train on.
        train_tokens: longest training line; longer ones are cut.
        sample_lines: training lines whose block inputs and outputs the layer-wise part keeps.
        closed_form_densities: densities at which the layer-wise part alone is measured for the frontier.
        activation: of the sparse model, as :func:`~lazyneuron.experiments.demo.distillation.closed_form` takes it.
        start_density: mean density of the blocks after the layer-wise part, where end-to-end training starts.
        target_density: mean density to arrive at.
        steps: end-to-end training steps.
        step_tokens: tokens a step, padding included.
        learning_rate: its peak.
        last_rate: share of it that is left at the end.
        layers_weight: of the errors of the layers' outputs in the loss.
        embedding_weight: of the embedding's cosine error.
        strength: the penalty's coefficient at the first step.
        train_seconds: time after which end-to-end training ends in any case.
        checkpoints: shares of the training steps after which a point of the frontier is measured.
        latency_seconds: time spent on each latency case.
        latency_rounds: turns of each variant in a case, even when they take longer than that.
        calibration_lines: training lines that the quantisation of other engines looks at.
        engines: whether other engines are run beside; those that are not installed are rows that say so.
        compile: whether ``torch.compile`` is among the variants.
        pack: whether end-to-end training keeps for its backward only what fires.
    """

    seed: int = 0
    quick: bool = False
    held_out_lines: int = 600
    held_out_tokens: int = 128
    kind_lines: int = 6_000
    train_lines: int = 30_000
    train_tokens: int = 64
    sample_lines: int = 900
    closed_form_densities: tuple[float, ...] = (0.1,)
    activation: str = "offset_gelu"
    start_density: float = 0.29
    target_density: float = 0.29
    steps: int = 1500
    step_tokens: int = 512
    learning_rate: float = 5e-5
    last_rate: float = 0.0
    layers_weight: float = 3.0
    embedding_weight: float = 10.0
    strength: float = 0.02
    train_seconds: float = 150.0
    checkpoints: tuple[float, ...] = (0.4, 0.7)
    latency_seconds: float = 7.0
    latency_rounds: int = 5
    compile: bool = True
    calibration_lines: int = 100
    engines: bool = True
    pack: bool = False

    @staticmethod
    def quick_run(*, seed: int = 0) -> Settings:
        """The settings of ``--quick``: a fifth of the training, no compiled variant, shorter timing."""
        return Settings(
            seed=seed,
            quick=True,
            kind_lines=1_500,
            train_lines=6_000,
            sample_lines=700,
            closed_form_densities=(),
            steps=250,
            train_seconds=26.0,
            checkpoints=(),
            latency_seconds=2.0,
            latency_rounds=3,
            compile=False,
            engines=False,
        )
