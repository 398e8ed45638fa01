"""The interface of a run's folder that training needs."""

import pathlib
from typing import Any, Protocol

import numpy as np

from vaegan_jax.training.monitor import Trouble


class RunWriter(Protocol):
    """A folder in which a run records its progress; `vaegan_jax.workdir.Workdir` implements it."""

    @property
    def path(self) -> pathlib.Path:
        """The folder."""

    def checkpoints(self, stage: str) -> pathlib.Path:
        """Returns the folder of a stage's checkpoints."""

    def finished(self, stage: str) -> bool:
        """Returns whether a stage has ever reached its last step."""

    def metrics(self, stage: str) -> list[dict[str, Any]]:
        """Returns the scalars that a stage has logged: `step` and further names."""

    def smallest_distance(self, stage: str) -> tuple[str, int | None]:
        """Returns the name of a distance, and the step where it is smallest."""

    def rewind(self, stage: str, step: int) -> None:
        """Removes the records of a stage after a step; call it before writing any."""

    def write_event(self, text: str) -> None:
        """Records an event."""

    def write_metrics(self, stage: str, step: int, scalars: dict[str, float]) -> None:
        """Records scalars."""

    def write_curve(self, stage: str, step: int, scalars: dict[str, float]) -> None:
        """Records distances to real images."""

    def write_picture(self, stage: str, name: str, step: int, picture: np.ndarray) -> pathlib.Path:
        """Writes a picture, uint8 [H, W, C]."""

    def write_trouble(self, stage: str, step: int, trouble: Trouble) -> bool:
        """Records a trouble unless it is recorded already; returns whether it is new."""
