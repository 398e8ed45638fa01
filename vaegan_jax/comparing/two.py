"""Two runs, A and B: where they differ first, and why that may be."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from vaegan_jax import config as configuration
from vaegan_jax.comparing import leaves
from vaegan_jax.comparing.runs import STAGES, TIMES, Line, Run, missing
from vaegan_jax.errors import UserError

LoadState = Callable[[Run, str, int], leaves.State]
"""(run, stage, step) -> the state that it saved there."""

IDENTICAL = "identical"
UNEQUALLY_FAR = "same bits as far as both go"
DIFFERENT_BITS = "same config, different bits"
DIFFERENT_CONFIG = "different config"

_NAMED = 3


class Pair(NamedTuple):
    """Something that differs.

    Attributes:
      name: of the field or of the scalar.
      a: its value in A, or None where A has none.
      b: its value in B, or None where B has none.
    """

    name: str
    a: Any
    b: Any


class FirstDifference(NamedTuple):
    """Where the lines of two runs differ first.

    Attributes:
      stage: "vae" or "gan".
      step: of the line.
      scalars: what differs there; empty where only one run has the line.
      only_in: "A" or "B" where only that run has the line, or "".
    """

    stage: str
    step: int
    scalars: list[Pair]
    only_in: str = ""


class Lines(NamedTuple):
    """What came out for metrics.jsonl or curve.jsonl.

    Attributes:
      compared: lines that both have.
      first: where they differ first, if they do.
      ends: the last step of A and of B, by stage.
      unshared: scalars that only A or only B logs, which are not compared: "stage/scalar".
    """

    compared: int
    first: FirstDifference | None
    ends: dict[str, tuple[int | None, int | None]]
    unshared: dict[str, list[str]]


class Checkpoint(NamedTuple):
    """The digests of what both saved at a step."""

    stage: str
    step: int
    a: str
    b: str


class Checkpoints(NamedTuple):
    """What came out for the checkpoints.

    Attributes:
      compared: those that both have.
      first: the first one that differs, as (stage, step), if one does.
      leaves: what differs in it.
    """

    compared: list[Checkpoint]
    first: tuple[str, int] | None
    leaves: list[leaves.LeafDifference]


class NumberPair(NamedTuple):
    """A number of the evaluation, with its standard error, in A and in B.

    The value is None where it is not finite; `same` is whether value, error, floor and counts are.
    """

    subject: str
    against: str
    metric: str
    a: float | None
    a_error: float | None
    b: float | None
    b_error: float | None
    same: bool


class Evaluations(NamedTuple):
    """What came out for the evaluations.

    Attributes:
      only_in: "A" or "B" where only that run has one, or "".
      conditions: what they were made with, where that differs.
      numbers: those that both have.
      unshared: those that only A or only B has.
    """

    only_in: str
    conditions: list[Pair]
    numbers: list[NumberPair]
    unshared: dict[str, list[str]]


class Verdict(NamedTuple):
    """What came out, in a word and in a sentence.

    Attributes:
      kind: `IDENTICAL`, `UNEQUALLY_FAR`, `DIFFERENT_BITS` or `DIFFERENT_CONFIG`.
      text: it, with where and why.
    """

    kind: str
    text: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """All that two runs say about each other.

    Attributes:
      a: the folder of the first run.
      b: the folder of the second.
      verdict: what came out.
      config: fields that differ, of those that what is trained depends on.
      free: fields that differ, of the others.
      environment: what differs in run.json.
      data: what differs in data.json.
      metrics: the logged scalars.
      curve: the distances as training went on.
      troubles: troubles that only one run had, "seen" there.
      checkpoints: the saved states.
      evaluation: its numbers.
      notes: what is missing, a sentence each.
    """

    a: str
    b: str
    verdict: Verdict
    config: list[Pair]
    free: list[Pair]
    environment: list[Pair]
    data: list[Pair]
    metrics: Lines
    curve: Lines
    troubles: list[Pair]
    checkpoints: Checkpoints
    evaluation: Evaluations
    notes: list[str]


def compare(a: Run, b: Run, load: LoadState) -> Comparison:
    """Holds two runs against each other, as far as both go.

    Raises:
      UserError: where they have nothing in common that could be compared.
    """
    fields = pairs(a.config, b.config)
    found = Comparison(
        a=a.name,
        b=b.name,
        verdict=Verdict("", ""),
        config=[pair for pair in fields if not is_free(pair.name)],
        free=[pair for pair in fields if is_free(pair.name)],
        environment=_pairs_of_both(a.environment, b.environment),
        data=_pairs_of_both(a.data, b.data),
        metrics=compare_lines(a.metrics, b.metrics),
        curve=compare_lines(a.curve, b.curve),
        troubles=pairs(_troubles(a), _troubles(b)),
        checkpoints=compare_checkpoints(a, b, load),
        evaluation=compare_evaluations(a.evaluation, b.evaluation),
        notes=[note for run in (a, b) for note in run.notes + missing(run)],
    )
    if not _has_something(found):
        raise UserError(
            f"{a.path} and {b.path} have nothing in common that could be compared, no line of "
            "metrics, no checkpoint and no number: let both run further."
        )
    aside = [f"Not compared: {text}." for text in _unequally_far(found)]
    return dataclasses.replace(found, verdict=_verdict(found), notes=found.notes + aside)


def is_free(field: str) -> bool:
    """Whether nothing that is trained depends on a field of the config."""
    return field in configuration.FIELDS and configuration.FIELDS[field].free


def pairs(a: dict[str, Any], b: dict[str, Any]) -> list[Pair]:
    """Returns what differs between two flat mappings, in the order of the names."""
    return [
        Pair(name, a.get(name), b.get(name))
        for name in sorted(a.keys() | b.keys())
        if not _same(a.get(name), b.get(name))
    ]


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns ``{"packages.jax": "0.10", ...}`` for a mapping of mappings."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        inner = flat(value, f"{prefix}{name}.") if isinstance(value, dict) else None
        found |= {f"{prefix}{name}": value} if inner is None else inner
    return found


def compare_lines(a: Sequence[Line], b: Sequence[Line]) -> Lines:
    """Finds the first line in which a scalar differs in any bit; times are left out.

    Lines beyond the last step that both have of a stage are no difference, nor are scalars that
    one run never logs.
    """
    ends: dict[str, tuple[int | None, int | None]] = {}
    unshared: dict[str, list[str]] = {"A": [], "B": []}
    first, compared = None, 0
    for stage in STAGES:
        of_a, of_b = _by_step(a, stage), _by_step(b, stage)
        if not of_a and not of_b:
            continue
        ends[stage] = (max(of_a, default=None), max(of_b, default=None))
        if not of_a or not of_b:
            continue
        names_a, names_b = _scalars(of_a.values()), _scalars(of_b.values())
        unshared["A"] += [f"{stage}/{name}" for name in sorted(names_a - names_b)]
        unshared["B"] += [f"{stage}/{name}" for name in sorted(names_b - names_a)]
        compared += len(of_a.keys() & of_b.keys())
        if first is None:
            first = _first_difference(stage, of_a, of_b, names_a & names_b)
    return Lines(compared, first, ends, unshared)


def compare_checkpoints(a: Run, b: Run, load: LoadState) -> Checkpoints:
    """Compares what both saved at the same steps; the first that differs leaf by leaf."""
    compared: list[Checkpoint] = []
    first, differing = None, []
    for stage in STAGES:
        steps = set(a.checkpoints.get(stage, [])) & set(b.checkpoints.get(stage, []))
        for step in sorted(steps):
            states = load(a, stage, step), load(b, stage, step)
            digests = [leaves.digest(state) for state in states]
            compared.append(Checkpoint(stage, step, *digests))
            if first is None and digests[0] != digests[1]:
                first, differing = (stage, step), leaves.differences(*states)
    return Checkpoints(compared, first, differing)


def compare_evaluations(a: dict[str, Any] | None, b: dict[str, Any] | None) -> Evaluations:
    """Lays the numbers of two evaluations side by side; times are left out."""
    if a is None or b is None:
        only_in = "A" if b is None and a is not None else "B" if b is not None else ""
        return Evaluations(only_in, [], [], {"A": [], "B": []})
    of_a, of_b = _by_place(a), _by_place(b)
    numbers = [
        NumberPair(
            *place,
            a=number["value"],
            a_error=number["error"],
            b=of_b[place]["value"],
            b_error=of_b[place]["error"],
            same=_same(number, of_b[place]),
        )
        for place, number in of_a.items()
        if place in of_b
    ]
    unshared = {
        "A": [_place(place) for place in of_a if place not in of_b],
        "B": [_place(place) for place in of_b if place not in of_a],
    }
    aside = ("numbers", "findings", "seconds")
    conditions = [
        {name: value for name, value in evaluation.items() if name not in aside}
        for evaluation in (a, b)
    ]
    return Evaluations("", pairs(*map(flat, conditions)), numbers, unshared)


def _same(a: Any, b: Any) -> bool:
    """Whether two values of a JSON file are the same, numbers to the last bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[name], b[name]) for name in a)
    if isinstance(a, float) or isinstance(b, float):
        # As text, since NaN is no less the same and -0.0 is another number than 0.0.
        numbers = isinstance(a, int | float) and isinstance(b, int | float)
        return numbers and repr(float(a)) == repr(float(b))
    return bool(a == b)


def _pairs_of_both(a: dict[str, Any] | None, b: dict[str, Any] | None) -> list[Pair]:
    return pairs(flat(a), flat(b)) if a and b else []


def _by_step(lines: Iterable[Line], stage: str) -> dict[int, Line]:
    return {line["step"]: line for line in lines if line["stage"] == stage}


def _scalars(lines: Iterable[Line]) -> set[str]:
    return {name for line in lines for name in line} - {"stage", "step", *TIMES}


def _first_difference(
    stage: str, a: dict[int, Line], b: dict[int, Line], names: set[str]
) -> FirstDifference | None:
    end = min(max(a), max(b))
    for step in sorted(step for step in a.keys() | b.keys() if step <= end):
        if step not in a or step not in b:
            return FirstDifference(stage, step, [], "A" if step in a else "B")
        lines = [{name: line[name] for name in names & line.keys()} for line in (a[step], b[step])]
        differing = pairs(*lines)
        if differing:
            return FirstDifference(stage, step, differing)
    return None


def _troubles(run: Run) -> dict[str, str]:
    return {
        f"{line['trouble']} ({line['stage']}, step {line['step']})": "seen" for line in run.troubles
    }


def _by_place(evaluation: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {(n["subject"], n["against"], n["metric"]): n for n in evaluation["numbers"]}


def _place(place: tuple[str, str, str]) -> str:
    subject, against, metric = place
    return f"{metric} of {subject}" + (f" against {against}" if against else "")


def _has_something(found: Comparison) -> bool:
    return bool(
        found.metrics.compared
        or found.curve.compared
        or found.checkpoints.compared
        or found.evaluation.numbers
    )


def _verdict(found: Comparison) -> Verdict:
    where = _first(found)
    far = _unequally_far(found)
    data = any(pair.name == "digest" for pair in found.data)
    if found.config:
        fields = _and([_field(pair) for pair in found.config])
        bits = f"different bits from {where}" if where else "and yet no recorded bit differs"
        return Verdict(DIFFERENT_CONFIG, f"{DIFFERENT_CONFIG} ({fields}), {bits}.")
    if where or data:
        bits = f" from {where}" if where else ", of the images alone"
        return Verdict(DIFFERENT_BITS, f"{DIFFERENT_BITS}{bits}: {_reasons(found)}.")
    if far:
        return Verdict(UNEQUALLY_FAR, f"same config, {UNEQUALLY_FAR}: {_and(far)}.")
    compared = [
        (found.metrics.compared, "lines of metrics"),
        (found.curve.compared, "lines of the curve"),
        (len(found.checkpoints.compared), "checkpoints"),
        (len(found.evaluation.numbers), "numbers of the evaluation"),
    ]
    what = [f"{count} {name}" for count, name in compared if count]
    return Verdict(
        IDENTICAL,
        f"{IDENTICAL}: the same config, and {_and(what, len(what))} are the same to the last bit.",
    )


def _first(found: Comparison) -> str:
    """Returns the first place at which any bit differs, or nothing."""
    places: list[tuple[int, int, str]] = []
    for lines, kind in ((found.metrics, "metrics"), (found.curve, "curve")):
        if lines.first:
            stage, step, scalars, only_in = lines.first
            what = f"a line of {kind} that only {only_in} has"
            if scalars:
                what = _and([pair.name for pair in scalars])
            places.append((STAGES.index(stage), step, f"step {step} ({stage}, {what})"))
    if found.checkpoints.first:
        stage, step = found.checkpoints.first
        count = len(found.checkpoints.leaves)
        what = f"{count} {'leaf' if count == 1 else 'leaves'} of the checkpoint"
        places.append((STAGES.index(stage), step, f"step {step} ({stage}, {what})"))
    changed = [
        _place((number.subject, number.against, number.metric))
        for number in found.evaluation.numbers
        if not number.same
    ]
    if changed:
        places.append((len(STAGES), 0, f"the evaluation ({_and(changed)})"))
    return min(places, key=lambda place: place[:2])[2] if places else ""


def _unequally_far(found: Comparison) -> list[str]:
    """Returns what only one of the runs has done."""
    texts = []
    for lines, kind in ((found.metrics, "metrics"), (found.curve, "the curve")):
        for stage, (a, b) in lines.ends.items():
            if a != b:
                ends = ("has none" if end is None else f"to step {end}" for end in (a, b))
                texts.append("{} of the {} (A {}, B {})".format(kind, stage, *ends))
        texts += [
            f"only {run} logs {_and(names)}" for run, names in lines.unshared.items() if names
        ]
    if found.evaluation.only_in:
        texts.append(f"only {found.evaluation.only_in} is evaluated")
    texts += [
        f"only {run} has {_and(names)}" for run, names in found.evaluation.unshared.items() if names
    ]
    return texts


def _reasons(found: Comparison) -> str:
    texts = []
    if found.data:
        texts.append(f"the data differs ({_and([pair.name for pair in found.data])})")
    if found.environment:
        texts.append(f"the environment differs ({_and([_field(p) for p in found.environment])})")
    if found.free:
        texts.append(f"the config differs in {_and([_field(pair) for pair in found.free])}")
    ahead = found.metrics.first or found.curve.first or found.checkpoints.first
    if found.evaluation.conditions and not ahead:
        names = [_field(pair) for pair in found.evaluation.conditions]
        texts.append(f"the evaluations were made with other {_and(names)}")
    return "; ".join(texts) or "nothing recorded differs"


def _field(pair: Pair) -> str:
    return f"{pair.name} {value(pair.a)} and {value(pair.b)}"


def value(of_field: Any) -> str:
    """Returns a value of a config or of another file as text."""
    return "absent" if of_field is None else f"{of_field}" if of_field != "" else "empty"


def _and(texts: Sequence[str], most: int = _NAMED) -> str:
    """Returns a few texts as words of a sentence, and how many there are besides."""
    shown = list(texts[:most])
    if len(texts) > most:
        shown.append(f"{len(texts) - most} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
