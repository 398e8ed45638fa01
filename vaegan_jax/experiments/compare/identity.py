"""Bitwise comparison of two runs: a verdict, and the first difference."""

import hashlib
from typing import NamedTuple

from vaegan_jax import checkpoints
from vaegan_jax.experiments.compare import records
from vaegan_jax.experiments.compare.records import STAGES, Run

IDENTICAL = "identical"
PARTLY_IDENTICAL = "identical where both have values"
DIFFERENT = "different"

# Identical runs have different times; the number of images is a function of the step.
_NOT_COMPARED = ("seconds", "steps_per_second", "images_per_second", "images")
_LEAF = "checkpoint/"


class Difference(NamedTuple):
    """A number in which two runs differ, or a leaf of a checkpoint by its SHA-256, as text."""

    stage: str
    step: int
    name: str
    values: tuple[str, str]


class Identity(NamedTuple):
    """The result of comparing two runs.

    Attributes:
      verdict: one of the constants above; `PARTLY_IDENTICAL` if one run has more numbers.
      numbers: how many numbers, without times, are bit-identical, and how many both runs have.
      leaves: the same of the leaves of checkpoints that both runs have.
      first: all differences at the first step with a difference.
      only: for each run, names that the other lacks or has for fewer steps.
    """

    verdict: str
    numbers: tuple[int, int]
    leaves: tuple[int, int]
    first: list[Difference]
    only: list[list[str]]


def compare_bits(a: Run, b: Run) -> Identity:
    """Compares the numbers, facts and checkpoints of two runs.

    Raises:
      UserError: if a checkpoint is damaged.
    """
    of_a, of_b = _values(a, b), _values(b, a)
    shared = sorted(of_a.keys() & of_b.keys())
    differing = [key for key in shared if of_a[key] != of_b[key]]
    only = [
        sorted({f"{STAGES[stage]}/{name}" for stage, _, name in mine.keys() - other.keys()})
        for mine, other in ((of_a, of_b), (of_b, of_a))
    ]
    if differing or any(fact.is_cause for fact in records.differing_facts([a, b])):
        verdict = DIFFERENT
    else:
        verdict = PARTLY_IDENTICAL if any(only) else IDENTICAL

    def count(of_leaves: bool) -> tuple[int, int]:
        keys = [key for key in shared if key[2].startswith(_LEAF) == of_leaves]
        return sum(of_a[key] == of_b[key] for key in keys), len(keys)

    first = [
        Difference(STAGES[key[0]], *key[1:], (of_a[key], of_b[key]))
        for key in differing
        if key[:2] == differing[0][:2]
    ]
    return Identity(verdict, count(False), count(True), first, only)


def _values(run: Run, other: Run) -> dict[tuple[int, int, str], str]:
    """Returns the numbers of a run, and the leaves of the checkpoints that the other also has.

    The keys are (index of the stage, step, name). As text NaN equals NaN, and -0.0 is not 0.0.
    """
    values = {
        (STAGES.index(record.stage), record.step, record.name): repr(record.value)
        for record in run.records
        if record.name.removeprefix(records.CURVE) not in _NOT_COMPARED
    }
    for index, stage in enumerate(records.TRAINED):
        for step in {*run.checkpoints[stage]} & {*other.checkpoints[stage]}:
            for name, x in checkpoints.load(run.folder.checkpoints(stage), step).items():
                content = f"{x.dtype} {x.shape}\n".encode() + x.tobytes()  # in C order
                values[index, step, _LEAF + name] = hashlib.sha256(content).hexdigest()
    return values
