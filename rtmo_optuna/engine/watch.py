"""Whether a model's files are still those that a study was made for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from rtmo_optuna.engine.graph import hash_model
from rtmo_optuna.errors import LostError

Stamp: TypeAlias = tuple[int, int, int] | None


@dataclass
class ModelWatch:
    """Looks at size, time and inode of a model and its `external_files` (relative to its folder) when called.

    Where they changed, the content is looked at too: a file that was only copied or touched is the same. Raises
    LostError where it is another one, or gone.
    """

    model: Path
    external_files: Sequence[str]
    sha256: str
    _stamps: list[Stamp] = field(init=False)

    def __post_init__(self) -> None:
        """Remember how the files are now."""
        self._stamps = self._look()

    def __call__(self) -> None:
        """Raise LostError where the files are not what they were."""
        stamps = self._look()
        if stamps == self._stamps:
            return
        if None in stamps or hash_model(self.model, self.external_files) != self.sha256:
            what = "is gone" if None in stamps else "changed"
            raise LostError(
                f"The model {self.model} {what} while the study ran, so the study stops here; what was measured before "
                "is kept. Put it back and run the same command again, or start a study of the new one with --new."
            )
        self._stamps = stamps

    def _look(self) -> list[Stamp]:
        return [_stamp(file) for file in (self.model, *(self.model.parent / name for name in self.external_files))]


def _stamp(file: Path) -> Stamp:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino
