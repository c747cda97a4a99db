"""The exception tree. Every message is a full sentence: what is wrong, where, and what to do about it."""


class TunerError(Exception):
    """The root of all errors of this package; `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(TunerError):
    """What the user gave cannot be used: a file, an option, a shape, a study definition, a configuration."""

    exit_code = 2


class IdentityError(UsageError):
    """A study of this name exists, but it was made for another model, machine, space or way of measuring."""


class NothingMeasuredError(TunerError):
    """No settings could be measured, so there is nothing to report or export."""


class LostError(TunerError):
    """What a study is kept in (its database, its files) failed for good while it was in use."""


class HeldError(LostError):
    """The process `pid` (None: one that is not known) had the device until the time was up; `holder` says who."""

    def __init__(self, pid: int | None) -> None:
        """Keep who it was beside the sentence."""
        self.holder = f"process {pid}" if pid else "another process"
        text = f"The time was up while {self.holder} measured on this device: end it, or give a longer --timeout."
        super().__init__(text)


class SettingsRefusedError(TunerError):
    """ONNX Runtime does not take these settings, or reads them back otherwise than they were given."""


class ChildError(TunerError):
    """A child process failed outside a benchmark; `stage` says where, `log` holds its last lines.

    `bad_input` is true where ONNX Runtime refused the model or its input, so that the user has to change something.
    """

    def __init__(self, message: str, *, stage: str, log: str = "", bad_input: bool = False) -> None:
        """Keep the place and the child's last lines beside the sentence."""
        super().__init__(message)
        self.stage = stage
        self.log = log
        self.bad_input = bad_input
