"""What the training loop needs: a stage of a run, and the folder that records its progress."""
# ruff: noqa: D102 - `workdir.Workdir` documents its methods

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import jax
import numpy as np

from vaegan_jax import randomness
from vaegan_jax.training.monitor import Trouble

State = TypeVar("State", bound=Any)  # has `step`, an int32 scalar, the number of steps taken
Scalars = dict[str, jax.Array]
Step = Callable[[State, jax.Array, jax.Array], tuple[State, Scalars]]


@dataclasses.dataclass(frozen=True)
class Stage(Generic[State]):
    """The functions and sizes that the loop needs of a stage.

    Attributes:
      number: its number in the derivation of keys; its name in lower case is used in file names.
      steps: total number of steps.
      batch_size: images per step.
      template: the state as `jax.ShapeDtypeStruct`, to restore a checkpoint into.
      init: () -> the initial state; called only if no checkpoint exists.
      step: (state, images in [-1, 1], key) -> (state, scalars).
      pictures: state -> pictures by name, uint8 [H, W, C].
      shown: names of the scalars on the progress lines.
      measure: state -> distances to real images by name, computed every
        ``evaluation.curve_every`` steps; None for no curve.
      measures_start: whether the initial state is measured, too.
      kept: state -> the part of the state with the smallest distance to keep; None to keep none.
    """

    number: randomness.Stage
    steps: int
    batch_size: int
    template: State
    init: Callable[[], State]
    step: Step[State]
    pictures: Callable[[State], dict[str, np.ndarray]]
    shown: tuple[str, ...]
    measure: Callable[[State], dict[str, float]] | None = None
    measures_start: bool = False
    kept: Callable[[State], Any] | None = None

    @property
    def name(self) -> str:
        """The name in files and messages."""
        return self.number.name.lower()


class RunWriter(Protocol):
    """The methods of `workdir.Workdir` that training calls."""

    @property
    def path(self) -> pathlib.Path: ...
    def checkpoints(self, stage: str) -> pathlib.Path: ...
    def finished(self, stage: str) -> bool: ...
    def metrics(self, stage: str) -> list[dict[str, Any]]: ...
    def smallest_distance(self, stage: str) -> tuple[str, int | None]: ...
    def rewind(self, stage: str, step: int) -> None: ...
    def write_event(self, text: str) -> None: ...
    def write_metrics(self, stage: str, step: int, scalars: dict[str, float]) -> None: ...
    def write_curve(self, stage: str, step: int, scalars: dict[str, float]) -> None: ...
    def write_picture(self, stage: str, name: str, step: int, picture: np.ndarray) -> None: ...
    def write_trouble(self, stage: str, step: int, trouble: Trouble) -> bool: ...
