"""Bitwise comparison of two runs: a verdict, and the first difference."""

import dataclasses
import hashlib
import pathlib

from vaegan_jax import checkpoints, resume, workdir
from vaegan_jax.experiments.compare import records
from vaegan_jax.experiments.compare.records import STAGES, FactDifference, Run

IDENTICAL = "identical"
PARTLY_IDENTICAL = "identical where both have values"
DIFFERENT = "different"
NOTHING_SHARED = "nothing to compare"

# Identical runs have different times; the number of images is a function of the step.
_NOT_COMPARED = ("seconds", "steps_per_second", "images_per_second", "images")


@dataclasses.dataclass(frozen=True)
class ValueDifference:
    """A record or a leaf of a checkpoint in which two runs differ.

    Attributes:
      stage: see `Record`.
      step: see `Record`.
      name: of the record, or "checkpoint/" and the name of a leaf.
      values: of both runs: numbers, SHA-256 of leaves, or None if missing.
    """

    stage: str
    step: int
    name: str
    values: tuple[float | str | None, float | str | None]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that both runs have, and how many leaves of the state are bit-identical."""

    stage: str
    step: int
    equal: int
    leaves: int


@dataclasses.dataclass(frozen=True)
class Identity:
    """The result of comparing two runs.

    Attributes:
      verdict: `IDENTICAL`, `PARTLY_IDENTICAL` if one run has more values than the other,
        `DIFFERENT` if config, images or values differ, or `NOTHING_SHARED`.
      equal: number of bit-identical values, without times.
      numbers: number of values that both runs have.
      first: all differences at the first step with a difference.
      checkpoints: those that both runs have.
      only: for each run, names that the other lacks or has for fewer steps.
    """

    verdict: str
    equal: int
    numbers: int
    first: list[ValueDifference]
    checkpoints: list[Checkpoint]
    only: tuple[list[str], list[str]]


def compare_bits(a: Run, b: Run) -> Identity:
    """Compares the records, facts and checkpoints of two runs.

    Raises:
      UserError: if a checkpoint is damaged.
    """
    equal, differing, only = _compare_records(a, b)
    saved, differing_leaves = _compare_checkpoints(a, b)
    numbers = equal + sum(None not in value.values for value in differing)
    differences = sorted(differing + differing_leaves, key=_place)
    first = [value for value in differences if _place(value) == _place(differences[0])]
    if not (differences or numbers or saved):
        verdict = NOTHING_SHARED
    elif differences or any(map(is_cause, records.differing_facts([a, b]))):
        verdict = DIFFERENT
    else:
        verdict = PARTLY_IDENTICAL if any(only) else IDENTICAL
    return Identity(verdict, equal, numbers, first, saved, only)


def is_cause(fact: FactDifference) -> bool:
    """Whether a fact is an input of training: a field, the images, or another run's VAE."""
    if fact.file == workdir.CONFIG:
        return resume.affects_training(fact.name)
    if fact.file == workdir.ENVIRONMENT:
        return fact.name == "vae.sha256"
    return fact.file == workdir.DATA and fact.name in ("digest", "train")


def _place(value: ValueDifference) -> tuple[int, int]:
    return STAGES.index(value.stage), value.step


def _compare_records(
    a: Run, b: Run
) -> tuple[int, list[ValueDifference], tuple[list[str], list[str]]]:
    """Returns the number of equal values, the differences, and the names only one run has.

    A missing value is a difference if the run has values of that name before and after it, and not
    if the run ended earlier or does not log the name.
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
            leaves = [
                ValueDifference(stage, step, f"checkpoint/{name}", (of_a.get(name), of_b.get(name)))
                for name in names
                if of_a.get(name) != of_b.get(name)
            ]
            saved.append(Checkpoint(stage, step, len(names) - len(leaves), len(names)))
            differing += leaves
    return saved, differing


def _digests(run: Run, stage: str, step: int) -> dict[str, str]:
    """Returns the SHA-256 of the dtype, shape and bytes (C order) of each leaf."""
    state = checkpoints.load(workdir.Workdir(pathlib.Path(run.name)).checkpoints(stage), step)
    return {
        name: hashlib.sha256(f"{x.dtype} {x.shape}\n".encode() + x.tobytes()).hexdigest()
        for name, x in state.items()
    }
