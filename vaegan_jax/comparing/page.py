"""Comparisons on one page: an HTML file that opens anywhere, offline, in the look of the report."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jinja2

from vaegan_jax.comparing import curves, many, tables, two
from vaegan_jax.comparing.runs import Run, newest_pictures
from vaegan_jax.report.page import Picture, as_uri
from vaegan_jax.report.tables import Table

_TEMPLATE = "comparison.html.jinja"
_HERE = pathlib.Path(__file__).parent


class Section(NamedTuple):
    """A part of the page.

    Attributes:
      title: its heading.
      words: its paragraphs, shown where there is something else too.
      notes: paragraphs that are enough for a section.
      tables: of numbers.
      texts: tables of words.
      plots: SVG elements.
      pictures: pictures of A and of B, with a caption for both.
    """

    title: str
    words: Sequence[str] = ()
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()
    texts: Sequence[Table] = ()
    plots: Sequence[str] = ()
    pictures: Sequence[tuple[Picture, Picture, str]] = ()

    @property
    def filled(self) -> bool:
        """Whether there is anything to show."""
        return any((self.notes, self.tables, self.texts, self.plots, self.pictures))


def of_two(a: Run, b: Run, found: two.Comparison) -> str:
    """Returns the page of two runs; it reads the pictures that both drew.

    Raises:
      OSError: where a picture cannot be read.
    """
    drawn = curves.distances([*many.curves("A", [a]), *many.curves("B", [b])], broken=("B",))
    return _render(
        "Two runs",
        [f"A is {found.a}", f"B is {found.b}"],
        found.verdict.text[:1].upper() + found.verdict.text[1:],
        [
            Section("Samples", pictures=_pictures(a, b)),
            Section(
                "Numbers",
                ["After ± stands the standard error over other samples of the same model."],
                tables=tables.of_numbers(found),
            ),
            Section("Distance as training went on", plots=drawn),
            Section("Learning curves", plots=curves.learning(a.metrics, b.metrics)),
            Section("Bits", tables=tables.of_bits(found)),
            Section("What differs besides", texts=tables.of_config(found)),
            Section("What is missing", notes=found.notes),
        ],
    )


def of_many(found: many.Comparison) -> str:
    """Returns the page of many runs."""
    groups, *ranking = tables.of_groups(found)
    runs = [[group.letter, run] for group in found.groups for run in group.runs]
    return _render(
        f"{len(runs)} runs",
        [EXPLANATION],
        "",
        [
            Section("Groups", tables.lonely(found.groups), texts=[groups]),
            Section("Ranking", tables.unpaired(found), tables=ranking),
            Section("Distance as training went on", plots=curves.distances(found.curves)),
            Section("Means over the seeds", tables=tables.of_means(found)),
            Section("Differences between groups", [CAUTION], tables=tables.of_contrasts(found)),
            Section("Runs", texts=[Table("Folders", ["group", "folder"], runs)]),
            Section("What is missing", notes=found.notes),
        ],
    )


EXPLANATION = (
    "Runs that are alike but for the seed are replicates. In brackets stands the 95 % confidence "
    "interval of a mean over seeds, by Student's t."
)
CAUTION = (
    "Paired t tests over the seeds that both groups have. Of so many tests one in twenty says "
    "p < 0.05 where there is no difference at all."
)


def _render(name: str, lead: list[str], verdict: str, sections: list[Section]) -> str:
    report = _HERE.parent / "report"  # whose style is the page's too
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([_HERE, report]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page: str = environment.get_template(_TEMPLATE).render(
        name=name,
        lead=lead,
        verdict=verdict,
        sections=[section for section in sections if section.filled],
    )
    return page


def _pictures(a: Run, b: Run) -> list[tuple[Picture, Picture, str]]:
    shown = []
    for stage, name, what in (
        ("vae", "samples", "Samples of the VAE's decoder"),
        ("gan", "samples", "Samples of the GAN's generator (its running average)"),
        ("vae", "reconstructions", "Held-out images, each row above that of its reconstructions"),
    ):
        newest = newest_pictures(a, b, stage, name)
        if newest is not None:
            step, paths = newest
            caption = f"{what}, step {step}; {_shared(a, b, stage, name)}."
            pair = [
                Picture(as_uri(path), f"{letter}: {caption}")
                for letter, path in zip("AB", paths, strict=True)
            ]
            shown.append((pair[0], pair[1], caption))
    return shown


def _shared(a: Run, b: Run, stage: str, name: str) -> str:
    """Says whether two pictures show the same latents, or the same images."""
    if name == "reconstructions":
        same = a.digest is not None and a.digest == b.digest
        return "the same images" if same else "maybe other images"
    fields = ["seed", "model.latent_size"]
    fields += ["gan.noise"] if stage == "gan" else []
    other = [field for field in fields if a.config.get(field) != b.config.get(field)]
    if other:
        return f"other latents, since the runs differ in {' and '.join(other)}"
    return "the same latents"
