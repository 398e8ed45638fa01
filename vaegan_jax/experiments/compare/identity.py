"""Two runs compared bit for bit: whether they are identical, and where they differ first."""

import dataclasses
import hashlib
import pathlib

from vaegan_jax import checkpoints, workdir
from vaegan_jax.experiments.compare import records
from vaegan_jax.experiments.compare.records import STAGES, FactDifference, Run

IDENTICAL = "identical"
PARTLY_IDENTICAL = "identical as far as both go"
DIFFERENT = "different"
NOTHING_SHARED = "nothing to compare"

# Identical runs differ in times; the number of images follows from the step.
_NOT_COMPARED = ("seconds", "steps_per_second", "images_per_second", "images")


@dataclasses.dataclass(frozen=True)
class ValueDifference:
    """A record or a leaf of a checkpoint in which two runs differ.

    Attributes:
      stage: as of a `Record`, as is the step.
      step: see there.
      name: of the record, or "checkpoint/" and the name of a leaf.
      values: of either run: a number, the SHA-256 of a leaf, or None where it has none.
    """

    stage: str
    step: int
    name: str
    values: tuple[float | str | None, float | str | None]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A step that both runs saved: how many leaves of the state are equal to the last bit."""

    stage: str
    step: int
    equal: int
    leaves: int


@dataclasses.dataclass(frozen=True)
class Identity:
    """The result of comparing two runs.

    Attributes:
      verdict: `IDENTICAL`, `PARTLY_IDENTICAL` where one run has more than the other, `DIFFERENT`
        where config, images or values differ, or `NOTHING_SHARED`.
      equal: how many of the numbers that both have are equal to the last bit, times left out.
      numbers: how many numbers both have.
      first: what differs at the first step at which anything differs.
      checkpoints: the steps that both saved.
      only: of either run, the names that it alone has, or has beyond the other's last step.
    """

    verdict: str
    equal: int
    numbers: int
    first: list[ValueDifference]
    checkpoints: list[Checkpoint]
    only: tuple[list[str], list[str]]


def compare_bits(a: Run, b: Run) -> Identity:
    """Compares two runs; it reads the checkpoints that both saved.

    Raises:
      UserError: where a checkpoint is damaged.
    """
    equal, differing, only = _compare_records(a, b)
    saved, of_leaves = _compare_checkpoints(a, b)
    numbers = equal + sum(None not in value.values for value in differing)
    every = sorted(differing + of_leaves, key=_place)
    first = [value for value in every if _place(value) == _place(every[0])]
    if not (every or numbers or saved):
        verdict = NOTHING_SHARED
    elif every or any(map(is_cause, records.differing_facts([a, b]))):
        verdict = DIFFERENT
    else:
        verdict = PARTLY_IDENTICAL if any(only) else IDENTICAL
    return Identity(verdict, equal, numbers, first, saved, only)


def is_cause(fact: FactDifference) -> bool:
    """Whether runs that differ in this fact are trained on other images or with another config."""
    if fact.file == workdir.CONFIG:
        return records.is_trained_by(fact.name)
    return (fact.file, fact.name) == (workdir.DATA, "digest")


def _place(value: ValueDifference) -> tuple[int, int]:
    return STAGES.index(value.stage), value.step


def _compare_records(
    a: Run, b: Run
) -> tuple[int, list[ValueDifference], tuple[list[str], list[str]]]:
    """Returns how many numbers are equal, those that differ, and the names that one run has alone.

    A number that one run lacks is a difference where that run has the same name before and after,
    and not where the run ended earlier or does not log the name.
    """
    all_a, all_b = records.series(a.records), records.series(b.records)
    equal, differing = 0, []
    only: tuple[list[str], list[str]] = [], []
    for stage, name in dict.fromkeys([*all_a, *all_b]):
        if name.removeprefix(records.CURVE) in _NOT_COMPARED:
            continue
        of_a, of_b = all_a.get((stage, name), {}), all_b.get((stage, name), {})
        for step in sorted(of_a.keys() | of_b.keys()):
            values = of_a.get(step), of_b.get(step)
            if repr(values[0]) == repr(values[1]):  # NaN equals NaN, and -0.0 differs from 0.0
                equal += 1
            elif _covers(of_a, step) and _covers(of_b, step):
                differing.append(ValueDifference(stage, step, name, values))
            elif f"{stage}/{name}" not in only[step in of_b]:
                only[step in of_b].append(f"{stage}/{name}")
    return equal, differing, only


def _covers(values: dict[int, float], step: int) -> bool:
    return bool(values) and min(values) <= step <= max(values)


def _compare_checkpoints(a: Run, b: Run) -> tuple[list[Checkpoint], list[ValueDifference]]:
    saved, differing = [], []
    for stage in records.TRAINED:
        for step in sorted(set(a.checkpoints[stage]) & set(b.checkpoints[stage])):
            of_a, of_b = (_digests(run, stage, step) for run in (a, b))
            names = sorted(of_a.keys() | of_b.keys())
            apart = [name for name in names if of_a.get(name) != of_b.get(name)]
            saved.append(Checkpoint(stage, step, len(names) - len(apart), len(names)))
            differing += [
                ValueDifference(stage, step, f"checkpoint/{name}", (of_a.get(name), of_b.get(name)))
                for name in apart
            ]
    return saved, differing


def _digests(run: Run, stage: str, step: int) -> dict[str, str]:
    """Returns the SHA-256 of each leaf's dtype, shape and bytes, in C order."""
    state = checkpoints.load(workdir.Workdir(pathlib.Path(run.name)).checkpoints(stage), step)
    return {
        name: hashlib.sha256(f"{x.dtype} {x.shape}\n".encode() + x.tobytes()).hexdigest()
        for name, x in state.items()
    }
