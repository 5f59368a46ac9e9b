"""Results as Markdown tables: the same text is printed, and stands in the documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from core.appraise.quick import WANTED
from core.appraise.studies import FILM_SIZE
from core.explain.comparison import BASELINES, CHECK_EVERY, CHECK_NAMES, THIN_GAP_MM, THIN_MM, method_title
from core.metrics import ENSEMBLE, RESAMPLES
from core.results import RESULT_NAMES

_SHORT = ("auc", "ece", "sensitivity_at_high_specificity", "specificity_at_high_specificity", "location_peak_in_mask")


def show(interval: Mapping[str, Any] | None) -> str:
    """Return ``0.956 [0.928, 0.979]``; a dash where there is no value."""
    if not interval or interval["value"] is None:
        return "-"
    low, high = ("-" if interval[end] is None else f"{interval[end]:.3f}" for end in ("low", "high"))
    return f"{interval['value']:.3f} [{low}, {high}]"


def simulated_tables(report: Mapping[str, Any]) -> str:
    """Return everything that ``appraise simulated`` measured as Markdown."""
    measured = report["checkpoints"]
    parts = [_foreword(report), _table(["", *map(_title, measured)], _estimate_rows(measured))]
    parts += [_by_group_words(measured), _by_group_table(measured, "auc")]
    if any(found["peak"] for each in measured.values() for found in each["kinds"].values()):
        parts.append("Location head's peak inside the break, films:")
        parts.append(_by_group_table(measured, "peak"))
    parts.append("AUC by subgroup:")
    parts.append(_table(["", *map(_title, measured)], _subgroup_rows(measured)))
    if report["differences"]:
        parts.append("Differences of the study's AUC, paired over the same studies:")
        rows = [[f"`{each['first']}` - `{each['second']}`", show(each["auc"])] for each in report["differences"]]
        parts.append(_table(["", "difference"], rows))
    for name, finder in report["finders"].items():
        parts.append(_table([f"`{name}`, {_count(finder)} films", ""], _named_rows(finder)))
    return "\n\n".join(parts)


def short_simulated_table(report: Mapping[str, Any]) -> str:
    """Return the few figures that a reader in a hurry needs, one row a checkpoint, and how each kind is seen."""
    measured = report["checkpoints"]
    rows = [
        [_title(name), *(show(each["results"].get(estimate)) for estimate in _SHORT)] for name, each in measured.items()
    ]
    table = _table(["", *(RESULT_NAMES[name] for name in _SHORT)], rows)
    return "\n\n".join([_foreword(report), table, _by_group_words(measured), _by_group_table(measured, "auc")])


def _by_group_words(measured: Mapping[str, Any]) -> str:
    # Those that were read: a study whose films were all refused is in no estimate.
    read = {each["negatives"] for each in measured.values()}
    negatives = " to ".join(f"{n:,}" for n in sorted({min(read), max(read)}))
    return f"AUC of the study by kind of fracture and displacement, each against the {negatives} studies without one:"


def _by_group_table(measured: Mapping[str, Any], what: str) -> str:
    """Return the table of an estimate by kind and by displacement, one column a checkpoint."""
    words = {
        "kinds": lambda name: name.replace("_", " "),
        "displacements": lambda name: name if "displaced" in name else f"displaced {name}",
    }
    rows = []
    for group, say in words.items():
        for name in next(iter(measured.values()))[group]:
            cells = [each[group].get(name, {}).get(what) for each in measured.values()]
            n = next((cell["n"] for cell in cells if cell), 0)
            if n:
                rows.append([f"{say(name)} (n = {n})", *map(show, cells)])
    return _table(["", *map(_title, measured)], rows)


def steadiness_tables(report: Mapping[str, Any]) -> str:
    """Return everything that ``appraise steadiness`` measured as Markdown."""
    films = "simulated" if report["simulated"] else "given"
    parts = [
        f"How far a study's logit moves when all its films change: {report['films']:,} {films} films of "
        f"{report['studies']:,} studies, the wrist found anew on each changed film. Wanted: a median below "
        f"{report['steady']}. 95% intervals by a bootstrap over patients."
    ]
    if report["simulated"]:
        asked = f"--films {report['asked_films']} --seed {report['seed']}"
        parts[0] += f" Made by `python -m core.appraise steadiness {asked} --write`."
    if report.get("unreadable"):
        parts[0] += f" Files that cannot be read, and are left out: {report['unreadable']}."
    refused = {name: f"{each['films']} (whole studies: {each['studies']})" for name, each in report["refused"].items()}
    parts[0] += " " + _refused(refused)
    for name, changes in report["checkpoints"].items():
        rows = []
        for change, each in changes.items():
            median = each["median"]
            steady = "-" if median["value"] is None else "yes" if median["value"] < report["steady"] else "no"
            refused = [str(each["refused"]), str(each["films_refused"])]
            rows.append([change, show(median), show(each["90th_percentile"]), str(median["n"]), *refused, steady])
        heads = [_title(name), "median", "90th percentile", "studies", "read only one way", "films refused", "steady"]
        parts.append(_table(heads, rows))
    return "\n\n".join(parts)


_MAP_HEADS = {
    "hit": "highest point in the break",
    "hit_shown": "the same of maps shown as evidence",
    "energy": "share of heat in it",
    "overlap": "overlap at the threshold that is best on these films",
    "distance": "distance, mm",
    "ahead_of_gradcam_by": "hits beyond Grad-CAM's",
}
_CHECKS_LEGEND = (
    "In the tables of checked maps, medians: likeness (1: the same, 0: another map) to the map itself when it is made "
    "again and when the wrist is moved, and to other methods' maps, where high is good; likeness to the map of a "
    "network whose head, deeper half or all is scrambled, where low is good; what taking away the hottest places costs "
    "the answer, and giving back only them brings, in logits, more than random places or edges of bones do; share of "
    "the heat outside the limb or on what is saturated white; share of the maps that pass, and of these how many have "
    "their highest point in the break."
)
_SHORT_METHODS = ("layercam", "gradcam", *BASELINES)


def explanations_tables(report: Mapping[str, Any]) -> str:
    """Return everything that ``appraise explanations`` measured as Markdown."""
    parts = [_explanations_foreword(report)]
    thin = {(each["checkpoint"], each["method"]): each for each in report["thin"]}
    for name in dict.fromkeys(each["checkpoint"] for each in report["explanations"]):
        ours = [each for each in report["explanations"] if each["checkpoint"] == name]
        slim = [thin[name, each["method"]] for each in ours if (name, each["method"]) in thin]
        for which, rows in (("", ours), (", thin breaks", slim)):
            if rows:
                head = f"{_title(name)}{which} (n = {rows[0]['n']})"
                cells = (
                    [method_title(row["method"]), *(_show_of(row[key], row["n"]) for key in _MAP_HEADS)] for row in rows
                )
                parts.append(_table([head, *_MAP_HEADS.values()], cells))
        checked = [each for each in ours if each["checks"]]
        if checked:
            n = checked[0]["checks"]["good"]["n"]
            head = f"{_title(name)}, checked (n = {n})"
            cells = (
                [method_title(row["method"]), *(_show_of(row["checks"].get(key), n) for key in CHECK_NAMES)]
                for row in checked
            )
            parts.append(_table([head, *CHECK_NAMES.values()], cells))
    if any(each["checks"] for each in report["explanations"]):
        parts.insert(1, _CHECKS_LEGEND)
    return "\n\n".join(parts)


def short_explanations_table(report: Mapping[str, Any]) -> str:
    """Return how often the finest map, plain Grad-CAM and those who do not look hit the break, by checkpoint."""
    thin = {(each["checkpoint"], each["method"]): each for each in report["thin"]}
    rows = []
    for each in report["explanations"]:
        if each["method"] in _SHORT_METHODS:
            slim = thin.get((each["checkpoint"], each["method"]), {})
            estimates = (each["hit"], slim.get("hit"), slim.get("ahead_of_gradcam_by"))
            cells = [*map(show, estimates), _show_of(each["distance"], each["n"])]
            rows.append([_title(each["checkpoint"]), method_title(each["method"]), *cells])
    heads = ["", "", "hits", "hits, thin breaks", "beyond Grad-CAM's there", "distance, mm"]
    return _explanations_foreword(report) + "\n\n" + _table(heads, rows)


_LIKENESS_HEADS = {
    "spearman": "rank correlation, median",
    "spearman_10th_percentile": "10th percentile",
    "reach": f"films with {WANTED:g} or more",
    "pearson": "linear correlation, median",
}


def quick_tables(report: Mapping[str, Any]) -> str:
    """Return everything that ``appraise quickscorecam`` measured as Markdown."""
    foreword = (
        f"Quick Score-CAM ({report['groups']} groups of channels) beside Score-CAM over all channels, maps for the "
        f"finding of {report['films']:,} simulated films, each of another study, about half of them with a fracture; "
        f"simulator version {report['version']}, films of {report['size']} pixels that no training draws. Rank "
        "correlation is Spearman's, linear correlation Pearson's, over the cells of the feature map; 0 where one map "
        "is the same everywhere, and left out where both are. Wanted: a median rank correlation of "
        f"{WANTED:g} over all films. 95% intervals by a bootstrap over patients, Wilson's where a share is 0 or 1. "
        f"Made by `python -m core.appraise quickscorecam --films {report['asked_films']} --seed {report['seed']}"
        f"{_unusual(report)} --write`. {_refused(report['refused'])}"
    )
    rows = []
    for name, groups in report["checkpoints"].items():
        for films, each in groups.items():
            cells = [show(each[key]) for key in _LIKENESS_HEADS]
            rows.append([_title(name), f"{films} (n = {each['spearman']['n']})", *cells, str(each["no_map"])])
    return f"{foreword}\n\n{_table(['', 'films', *_LIKENESS_HEADS.values(), 'no map'], rows)}"


def _unusual(report: Mapping[str, Any]) -> str:
    """Return the options that were not the usual ones, as they are typed."""
    usual = {"size": FILM_SIZE, "check_every": CHECK_EVERY, "resamples": RESAMPLES}
    given = {name: report[name] for name, value in usual.items() if name in report and report[name] != value}
    return "".join(f" --{name.replace('_', '-')} {value}" for name, value in given.items())


def _show_of(interval: Mapping[str, Any] | None, films: int) -> str:
    """Return an estimate, and of how many films it is where these are not all."""
    some = interval and interval["value"] is not None and interval["n"] != films
    return f"{show(interval)}, n = {interval['n']}" if some else show(interval)


def _explanations_foreword(report: Mapping[str, Any]) -> str:
    every, thin = (max((each["n"] for each in report[name]), default=0) for name in ("explanations", "thin"))
    return (
        f"Heat maps of {every:,} simulated films with a fracture, each of another study, {thin:,} of them with a thin "
        f"break (hairlines, and others displaced by less than {THIN_MM:g} mm and gaping by less than {THIN_GAP_MM:g} "
        "mm that do not just bend a bone); "
        f"simulator version {report['version']}, films of {report['size']} pixels that no training draws. A hit: the "
        "map's highest point lies in the break's mask; distance: from there to the mask, median. 95% intervals by a "
        "bootstrap over patients. Made by "
        f"`python -m core.appraise explanations --films {report['asked_films']} --seed {report['seed']}"
        f"{_unusual(report)} --write`. "
        f"Of {report['asked_films']:,} broken studies {report['films']:,} have a film that shows the break. "
        + _refused(report["refused"])
    )


def _foreword(report: Mapping[str, Any]) -> str:
    return (
        f"{report['studies']:,} simulated studies of as many patients, {report['positives']:,} with a fracture; "
        f"{report['films']:,} films of {report['size']} pixels, simulator version {report['version']}, seeds from "
        f"{report['first_seed']} on, which no training draws. The wrist is found by the finder. 95% intervals by a "
        f"bootstrap over patients ({report['resamples']} resamples; Wilson's where a share or an AUC is 0 or 1). "
        f"Made by `python -m core.appraise simulated --studies {report['studies']} --seed {report['seed']} --write`. "
        + _refused({name: each["films_refused"] for name, each in report["checkpoints"].items()})
        + (f" The mean is of {', '.join(map(_title, report['mean_of']))}." if report["mean_of"] else "")
    )


def _refused(counts: Mapping[str, Any]) -> str:
    """Say how many films each checkpoint's check of quality refused: they are in no estimate."""
    told = ", ".join(f"{_title(name)} {count}" for name, count in counts.items())
    return f"Films refused as unfit to be read, which are in no estimate: {told}."


def _estimate_rows(measured: Mapping[str, Any]) -> Iterable[list[str]]:
    for name, words in RESULT_NAMES.items():
        cells = [each["results"].get(name) for each in measured.values()]
        n = next((cell["n"] for cell in cells if cell), 0)
        if n:
            yield [f"{words} (n = {n})", *map(show, cells)]
    for what, words in (
        ("films_refused", "films refused as unfit"),
        ("studies_refused", "studies left out, since all their films were"),
    ):
        yield [words, *(str(each[what]) for each in measured.values())]


def _subgroup_rows(measured: Mapping[str, Any]) -> Iterable[list[str]]:
    first = next(iter(measured.values()))
    for by, values in first["subgroups"].items():
        for value, found in values.items():
            cells = [each["subgroups"].get(by, {}).get(value, {}).get("auc") for each in measured.values()]
            yield [f"{by}: {value} (n = {found['auc']['n']} {found['counted']})", *map(show, cells)]


def _named_rows(results: Mapping[str, Any]) -> Iterable[list[str]]:
    return ([words, show(results[name])] for name, words in RESULT_NAMES.items() if name in results)


def _count(results: Mapping[str, Any]) -> int:
    return next(iter(results.values()))["n"]


def _title(name: str) -> str:
    return "the mean" if name == ENSEMBLE else f"`{name}`"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
