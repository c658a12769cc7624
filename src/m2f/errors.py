"""Every error a user can meet, and the exit code the command line gives for it.

A message is one sentence: what is wrong, the two values that disagree, what to do.
"""

from typing import ClassVar


class M2FError(Exception):
    """Base of all errors that are the user's to mend; the CLI prints only its message.

    ``exit_code`` is 1 where a check or a limit failed, 2 where the request or its input is
    wrong, 3 where something is missing (a file, a library, a device, room on the disk).
    """

    exit_code: ClassVar[int] = 2


class UsageError(M2FError):
    """Options that contradict each other or the files they are applied to."""


class ShapeError(M2FError):
    """Two arrays, or an array and its specification, disagree about a size."""


class CheckpointError(M2FError):
    """A checkpoint is corrupt, hostile, of an unknown format, or does not fit the model."""


class BundleError(M2FError):
    """A bundle is incomplete, altered, or of a version this program does not know."""


class ImageError(M2FError):
    """A file is not an image, or its pixels cannot be used."""


class DataError(M2FError):
    """Annotations are wrong, or do not fit their images or the model's categories."""


class ExportError(M2FError):
    """A model cannot be written as asked."""


class BuildError(M2FError):
    """TensorRT refuses a network, or cannot build it with these options."""


class EngineError(M2FError):
    """An engine is damaged, stale, or was built for another machine."""


class DeviceError(M2FError):
    """A GPU has no driver, not enough memory, or failed while running."""

    exit_code = 3


class CheckFailed(M2FError):
    """Two things that must agree do not."""

    exit_code = 1


class MissingFile(M2FError):
    """A file or folder that was named does not exist or cannot be read."""

    exit_code = 3


class MissingDependency(M2FError):
    """A library or device that the request needs is not there."""

    exit_code = 3


class DiskError(M2FError):
    """The disk is full, read-only, or failed while writing."""

    exit_code = 3
