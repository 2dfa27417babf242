"""Every error that framehead raises on purpose.

One root carries a `hint` (the command or option that mends the fault) and an
`exit_code` for the command line. Each kind also inherits the builtin exception
that a caller would expect, so ``except FileNotFoundError`` keeps working.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_SOME_CLIPS_FAILED = 3
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class FrameHeadError(Exception):
    """Root of all framehead errors.

    Parameters
    ----------
    message : str
        What must hold, what came instead, and where.
    hint : str, default ""
        The command or option that mends it; empty where nothing can be advised.
    """

    exit_code: ClassVar[int] = EXIT_FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Return the message followed by the hint, if there is one."""
        return f"{self.message} Hint: {self.hint}" if self.hint else self.message


class OptionInvalid(FrameHeadError, ValueError):
    """An option or argument has a value outside its legal set."""

    exit_code = EXIT_USAGE


class SamplingError(OptionInvalid):
    """The frame sampling that was asked for makes no sense."""


class VideosNotFound(FrameHeadError, FileNotFoundError):
    """The video folder does not exist or is not a folder."""


class NoClips(FrameHeadError, ValueError):
    """A folder or a selection holds no clip at all."""


class ManifestError(FrameHeadError, ValueError):
    """An annotation file cannot be used."""


class LayoutUnclear(FrameHeadError, ValueError):
    """The folders of clips can be read in more than one way."""


class VideoUnreadable(FrameHeadError, OSError):
    """A video file yields no frame, or decoding it failed."""


class ArchiveUnreadable(FrameHeadError, OSError):
    """An archive cannot be read in place."""


class OpenCVBroken(FrameHeadError, ImportError):
    """OpenCV is installed but cannot be imported."""


class DecoderBroken(FrameHeadError, ImportError):
    """PyAV is installed but cannot be imported."""


class WeightsNotFound(FrameHeadError, FileNotFoundError):
    """The backbone's weights are not on this machine and cannot be downloaded."""


class DownloadFailed(FrameHeadError, OSError):
    """A file did not arrive whole and in time."""


class WeightsUnreadable(FrameHeadError, OSError):
    """A weights file is truncated, damaged or made for another backbone."""


class WeightsMismatch(FrameHeadError, ValueError):
    """The weights found are not the ones a store or run was made with."""


class EngineUnavailable(FrameHeadError, RuntimeError):
    """The engine asked for cannot run on this machine."""


class StoreNotFound(FrameHeadError, FileNotFoundError):
    """There is no store at this path."""


class StoreMismatch(FrameHeadError, ValueError):
    """A store was made with other settings than those asked for."""


class StoreBusy(FrameHeadError, OSError):
    """Another process is writing to the store."""


class StoreDamaged(FrameHeadError, OSError):
    """A store's file is truncated, or its content fails its checksums."""


class StoreUnfinished(FrameHeadError, OSError):
    """An extraction into the store was interrupted or still runs."""


class OutputUnwritable(FrameHeadError, OSError):
    """A file or folder of results cannot be written."""


class OutputExists(FrameHeadError, FileExistsError):
    """A result made with other settings stands where a new one should go."""


class SplitImpossible(FrameHeadError, ValueError):
    """The clips cannot be divided as asked."""


class SplitLeaks(FrameHeadError, ValueError):
    """A group stands on both sides of a split."""


class HeadUnknown(FrameHeadError, ValueError):
    """No head of this name is registered."""

    exit_code = EXIT_USAGE


class RunNotFound(FrameHeadError, FileNotFoundError):
    """There is no finished run at this path."""


class RunDamaged(FrameHeadError, OSError):
    """A run folder lacks a part, or a part of it cannot be read."""


class TrainingFailed(FrameHeadError, RuntimeError):
    """Training produced no usable head."""


class ExtraMissing(FrameHeadError, ImportError):
    """An optional dependency that this option needs is not installed."""


class PluginUnusable(FrameHeadError, ImportError):
    """A module that registers heads or formats cannot be imported, or fails at its work."""


class Interrupted(FrameHeadError, KeyboardInterrupt):
    """The user stopped the work; what was committed is kept."""

    exit_code = EXIT_INTERRUPTED


@contextmanager
def resuming() -> Iterator[None]:
    """Say of an interrupt, as a context or decorator, that the work goes on when started again."""
    try:
        yield
    except KeyboardInterrupt as problem:
        message = problem.message if isinstance(problem, Interrupted) else "Interrupted."
        raise Interrupted(message, hint="run the same command again to go on") from problem
