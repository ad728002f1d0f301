"""Every error that lazyneuron raises on purpose.

Each message is one sentence: what is wrong, what was got, what is allowed, what to do next.
"""


class LazyNeuronError(Exception):
    """Base of all errors raised on purpose; the command line prints it and exits with 2."""


class ConfigError(LazyNeuronError, ValueError):
    """An option or a combination of options that has no meaning."""


class ShapeError(LazyNeuronError, ValueError):
    """A tensor whose shape, dtype, device or layout does not fit."""


class DataError(LazyNeuronError, ValueError):
    """Input data that is missing, empty, unreadable or of the wrong kind."""


class NoBlocksError(LazyNeuronError, ValueError):
    """A model in which no MLP block was found, or none that the verb can work on."""


class ImplUnavailable(LazyNeuronError, RuntimeError):
    """A named implementation that cannot run here."""


class CheckpointError(LazyNeuronError, RuntimeError):
    """A saved file that is missing, corrupt, foreign or unsafe to read."""


class AssumptionError(LazyNeuronError, ValueError):
    """A theorem or a guarantee whose assumptions the input does not meet."""


class DivergedError(LazyNeuronError, ArithmeticError):
    """A training whose loss is no longer a finite number."""


class TimingWarning(UserWarning):
    """Times that contradict each other; what was decided on them is looked at again later."""


# what reading a damaged or foreign file raises somewhere inside; a reader turns it into one of the errors above
MALFORMED = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,  # RecursionError is one
    MemoryError,
)


def said(error: BaseException) -> str:
    """What an error of another library says, as a part of one sentence."""
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(".") if lines else type(error).__name__
