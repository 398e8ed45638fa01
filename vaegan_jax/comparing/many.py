"""Many runs: alike but for the seed, they are replicates of one thing; groups of them compete."""

import collections
import itertools
import json
import math
import string
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

from vaegan_jax.comparing import student, two
from vaegan_jax.comparing.runs import STAGES, Line, Run, missing
from vaegan_jax.errors import UserError

COSTS = ("images", "seconds")

_NO_DISTANCES = ("stage", "step", *COSTS)


class Quantity(NamedTuple):
    """Something that every run says a number of.

    Attributes:
      source: "evaluation", or "curve" for the last value of the curve.
      subject: what is judged, such as "gan_samples".
      against: what it is compared with, or "".
      metric: its name.
    """

    source: str
    subject: str
    against: str
    metric: str

    @property
    def text(self) -> str:
        """It in words."""
        against = f" against {self.against}" if self.against else ""
        last = ", end of the curve" if self.source == "curve" else ""
        return f"{self.metric} of {self.subject}{against}{last}"


class Group(NamedTuple):
    """Runs that are alike but for the seed.

    Attributes:
      letter: what it is called for short.
      fields: what sets it apart from the other groups, by name.
      runs: the folders.
      seeds: of the runs, in their order.
    """

    letter: str
    fields: dict[str, Any]
    runs: list[str]
    seeds: list[Any]

    @property
    def text(self) -> str:
        """What sets it apart, in words."""
        named = (f"{name}={two.value(value)}" for name, value in self.fields.items())
        return ", ".join(named) or "all runs"


class Summary(NamedTuple):
    """What a group says of a quantity.

    Attributes:
      quantity: which.
      group: its letter.
      values: by seed, as text; those that are finite.
      missing: how many runs of the group say nothing, or nothing finite.
      mean: over the seeds, with its interval; None where there is no value.
    """

    quantity: Quantity
    group: str
    values: dict[str, float]
    missing: int
    mean: student.Mean | None


class Contrast(NamedTuple):
    """By how much a quantity of one group exceeds that of another, over the seeds of both.

    Attributes:
      quantity: which.
      a: the letter of one group.
      b: the letter of the other.
      seeds: that both have, as text.
      difference: B's mean less A's; None where fewer than two seeds are common.
    """

    quantity: Quantity
    a: str
    b: str
    seeds: list[str]
    difference: student.Difference | None


class Place(NamedTuple):
    """A place in the ranking.

    Attributes:
      group: its letter.
      mean: of the main distance.
      from_best: by how much it exceeds the best group's; None for that one itself, and where fewer
        than two seeds are common.
      text: what that means, in words.
    """

    group: str
    mean: student.Mean
    from_best: student.Difference | None
    text: str


class Curve(NamedTuple):
    """A distance as training went on, over the runs of a group.

    Attributes:
      group: its letter.
      stage: "vae" or "gan".
      metric: the distance.
      steps: at which all runs of the group have a value.
      images: seen until then, both stages.
      seconds: of training until then, both stages; the mean over the runs.
      means: over the runs.
      low: where the intervals of the means begin; None for a single run.
      high: where they end.
    """

    group: str
    stage: str
    metric: str
    steps: list[int]
    images: list[float]
    seconds: list[float]
    means: list[float]
    low: list[float] | None
    high: list[float] | None


class Comparison(NamedTuple):
    """All that many runs say together.

    Attributes:
      groups: in the order in which they were named.
      main: the quantity that the ranking goes by, or None where no run has it.
      ranking: the groups that have it, the nearest to real images first.
      summaries: of every quantity and group.
      contrasts: of every quantity and pair of groups.
      curves: of every distance, stage and group.
      notes: what is missing or was left out, a sentence each.
    """

    groups: list[Group]
    main: Quantity | None
    ranking: list[Place]
    summaries: list[Summary]
    contrasts: list[Contrast]
    curves: list[Curve]
    notes: list[str]


def compare(runs: Sequence[Run]) -> Comparison:
    """Compares runs, those that are alike but for the seed being replicates.

    A seed counts once in a group, since runs that are equal to the last bit are no evidence of
    how far another seed would move a number. Evaluations and curves count where they were taken
    as most of them were: with other images, another embedding or other counts a number of the
    same name is another one.

    Raises:
      UserError: where no run says anything that could be compared.
    """
    members, notes = _grouped(runs)
    groups = _named(members)
    in_groups = [run for group in members for run in group]
    notes += [
        note for run in in_groups for note in run.notes + missing(run, ("curve", "evaluation"))
    ]
    notes += [note for run in in_groups for note in _unfinished(run)]
    judged, said = _alike(in_groups, lambda run: run.evaluation, _evaluation_conditions)
    notes += [f"{run}: its evaluation is left out, made with other {what}." for run, what in said]
    drawn, said = _alike(in_groups, lambda run: run.curve, _curve_conditions)
    notes += [f"{run}: its curve is left out, made with other {what}." for run, what in said]

    values = {id(run): _values(run, run in judged, run in drawn) for run in in_groups}
    quantities = list(dict.fromkeys(q for run in in_groups for q in values[id(run)]))
    if not quantities:
        raise UserError(
            "These runs have no evaluation and no curve that could be compared: evaluate them "
            "with --stages=evaluate first."
        )
    summaries = [
        _summary(quantity, group, [(run, values[id(run)].get(quantity)) for run in of_group])
        for quantity in quantities
        for group, of_group in zip(groups, members, strict=True)
    ]
    contrasts = [
        _contrast(a, b)
        for _, of_quantity in itertools.groupby(summaries, lambda summary: summary.quantity)
        for a, b in itertools.combinations(of_quantity, 2)
        if a.values and b.values
    ]
    main = _main(quantities)
    return Comparison(
        groups=groups,
        main=main,
        ranking=_ranking([summary for summary in summaries if summary.quantity == main]),
        summaries=summaries,
        contrasts=contrasts,
        curves=[
            curve
            for group, of_group in zip(groups, members, strict=True)
            for curve in curves(group.letter, [run for run in of_group if run in drawn])
        ],
        notes=notes,
    )


def _grouped(runs: Sequence[Run]) -> tuple[list[list[Run]], list[str]]:
    groups: dict[str, dict[str, Run]] = {}
    notes = []
    for run in runs:
        group = groups.setdefault(json.dumps(_identity(run), sort_keys=True), {})
        first = group.setdefault(str(run.seed), run)
        if first is not run:
            notes.append(
                f"{run.path}: left out, since {first.path} has the same config and seed {run.seed}."
            )
    return [list(group.values()) for group in groups.values()], notes


def _identity(run: Run) -> dict[str, Any]:
    """Returns what replicates have in common: what is trained depends on it, but for the seed."""
    fields = {
        name: value
        for name, value in run.config.items()
        if name != "seed" and not two.is_free(name)
    }
    return fields | {"images": run.digest and run.digest[:12]}


def _named(members: Sequence[Sequence[Run]]) -> list[Group]:
    identities = [_identity(of_group[0]) for of_group in members]
    names = sorted({name for identity in identities for name in identity})
    apart = [
        name
        for name in names
        if len({json.dumps(identity.get(name)) for identity in identities}) > 1
    ]
    return [
        Group(
            _letter(index),
            {name: identity.get(name) for name in apart},
            [run.name for run in of_group],
            [run.seed for run in of_group],
        )
        for index, (identity, of_group) in enumerate(zip(identities, members, strict=True))
    ]


def _letter(index: int) -> str:
    """Returns A to Z, then A2 to Z2, and so on."""
    letters = string.ascii_uppercase
    again = index // len(letters)
    return letters[index % len(letters)] + (str(again + 1) if again else "")


def _unfinished(run: Run) -> list[str]:
    """Says where a run stopped before its end, so that its numbers are of another step."""
    notes = []
    for stage in STAGES:
        steps = [line["step"] for line in run.metrics if line["stage"] == stage]
        wanted = run.config.get(f"{stage}.steps")
        if steps and isinstance(wanted, int) and max(steps) < wanted:
            notes.append(f"{run.path}: {stage} stands at step {max(steps)} of {wanted}.")
    return notes


def _alike(
    runs: Sequence[Run],
    part: Callable[[Run], Any],
    conditions: Callable[[Run], dict[str, Hashable]],
) -> tuple[list[Run], list[tuple[str, str]]]:
    """Returns the runs whose part was made as most are, and for the others what differs."""
    having = [(run, conditions(run)) for run in runs if part(run)]
    if not having:
        return [], []
    counts = collections.Counter(tuple(sorted(made.items())) for _, made in having)
    usual = dict(counts.most_common(1)[0][0])
    others = [
        (run.name, ", ".join(sorted(name for name in made if made[name] != usual.get(name))))
        for run, made in having
        if made != usual
    ]
    return [run for run, made in having if made == usual], others


def _evaluation_conditions(run: Run) -> dict[str, Hashable]:
    evaluation = run.evaluation or {}
    made = {name: evaluation.get(name) or {} for name in ("embedding", "settings", "data")}
    # The file of the weights may lie elsewhere; their digest stands among the embedding's facts.
    settings = {n: v for n, v in made["settings"].items() if n != "evaluation.weights"}
    images = made["data"].get("digest", run.digest)
    return _texts(two.flat({"embedding": made["embedding"]}) | settings | {"images": images})


def _curve_conditions(run: Run) -> dict[str, Hashable]:
    names = ("embedding", "size", "resize", "curve_samples")
    settings = {f"evaluation.{name}": run.config.get(f"evaluation.{name}") for name in names}
    return _texts(settings | {"images": run.digest})


def _texts(conditions: dict[str, Any]) -> dict[str, Hashable]:
    return {name: json.dumps(value, sort_keys=True) for name, value in conditions.items()}


def _values(run: Run, judged: bool, drawn: bool) -> dict[Quantity, float | None]:
    """Returns all that a run says, None for what is not finite."""
    found: dict[Quantity, float | None] = {}
    if judged and run.evaluation is not None:
        for number in run.evaluation["numbers"]:
            place = number["subject"], number["against"], number["metric"]
            found[Quantity("evaluation", *place)] = number["value"]
    for stage in STAGES if drawn else ():
        for line in run.curve:
            if line["stage"] == stage:
                for name in _distances([line]):
                    found[Quantity("curve", f"{stage}_samples", "held_out", name)] = line[name]
    return found


def _distances(curve: Iterable[Line]) -> list[str]:
    names = dict.fromkeys(name for line in curve for name in line)
    return [n for n in names if n not in _NO_DISTANCES and not n.endswith("_floor")]


def _main(quantities: Sequence[Quantity]) -> Quantity | None:
    """Returns the evaluation's Frechet distance of the GAN, the first of its comparisons."""
    wanted = ("evaluation", "gan_samples", "held_out")
    return next((quantity for quantity in quantities if quantity[:3] == wanted), None)


def _summary(
    quantity: Quantity, group: Group, found: Sequence[tuple[Run, float | None]]
) -> Summary:
    values = {
        str(run.seed): float(value)
        for run, value in found
        if value is not None and math.isfinite(value)
    }
    mean = student.mean(list(values.values())) if values else None
    return Summary(quantity, group.letter, values, len(found) - len(values), mean)


def _contrast(a: Summary, b: Summary) -> Contrast:
    seeds = [seed for seed in a.values if seed in b.values]
    difference = None
    if len(seeds) > 1:
        difference = student.paired([a.values[s] for s in seeds], [b.values[s] for s in seeds])
    return Contrast(a.quantity, a.group, b.group, seeds, difference)


def _ranking(summaries: Sequence[Summary]) -> list[Place]:
    ordered = sorted(
        ((summary, summary.mean) for summary in summaries if summary.mean is not None),
        key=lambda pair: pair[1].mean,
    )
    places = []
    for summary, mean in ordered:
        best = ordered[0][0]
        if summary is best:
            places.append(Place(summary.group, mean, None, "the nearest on average"))
            continue
        difference = _contrast(best, summary).difference
        if difference is None:
            text = f"fewer than two seeds in common with {best.group}: no telling from noise"
        elif difference.within_noise:
            text = f"within noise of {best.group}"
        else:
            # The means are over all seeds of a group, the difference over those of both.
            side = "further" if difference.mean > 0 else "nearer, over the seeds in common,"
            text = f"{side} than {best.group}"
        places.append(Place(summary.group, mean, difference, text))
    return places


def curves(letter: str, runs: Sequence[Run]) -> list[Curve]:
    """Returns the curves of a group's runs, at the steps at which all of them have a line."""
    if not runs:
        return []
    found = []
    for name in _distances(runs[0].curve):
        wanted = {name, *COSTS}
        spent = [dict.fromkeys(COSTS, 0.0) for _ in runs]
        for stage in STAGES:
            lines = [
                {x["step"]: x for x in run.curve if x["stage"] == stage and wanted <= x.keys()}
                for run in runs
            ]
            steps = sorted(set.intersection(*(set(of_run) for of_run in lines)))
            if not steps:
                continue
            # What the VAE took was spent on the GAN too.
            costs = {
                cost: [
                    student.mean([b[cost] + x[s][cost] for b, x in zip(spent, lines, strict=True)])
                    for s in steps
                ]
                for cost in COSTS
            }
            means = [student.mean([of_run[s][name] for of_run in lines]) for s in steps]
            found.append(
                Curve(
                    letter,
                    stage,
                    name,
                    steps,
                    [cost.mean for cost in costs["images"]],
                    [cost.mean for cost in costs["seconds"]],
                    [mean.mean for mean in means],
                    [mean.low for mean in means if mean.low is not None] or None,
                    [mean.high for mean in means if mean.high is not None] or None,
                )
            )
            for before, of_run in zip(spent, lines, strict=True):
                last = of_run[max(of_run)]
                before |= {cost: before[cost] + last[cost] for cost in COSTS}
    return found
