"""What is there, and what is wrong with it, before anything learns from it: `adapt doctor data`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapt.plug import Plugin, Spec, UserError, load
from adapt.verbs.doctoring.request import Request

if TYPE_CHECKING:
    from datasets import DatasetDict

    from adapt.data.problems import Problem, Report


def look(config: Spec, request: Request, model: Plugin | None = None) -> tuple[int, dict[str, Any]]:
    """Print what is in the data of a source and what is wrong with them; write the list, and draw the contact sheet.

    Args:
        config: of a source.
        model: of the recipe, if there is one: by its input boxes are tiny, by its features labels doubtful.

    Returns:
        2 when there are severe problems, or training would refuse these data; else 0. And the same for JSON: pictures, problems, splits
        (with objects, classes and sizes), sizes, alike, noise, sheet, refused.
    """
    from adapt.data.auto import chosen
    from adapt.data.scan import also
    from adapt.verbs.doctoring.pictures import Shared
    from adapt.verbs.doctoring.rows import examined
    from adapt.verbs.doctoring.sheet import draw

    if config.source == "auto":
        config, said = chosen(config)
        print(said)
    shared = Shared()
    with also(shared.guest):
        splits, report, refused = _loaded(config, request)
    seen = None if splits is None else examined(splits, request.noise, model, shared)
    if seen:
        report = _joined(report, seen.problems)
    _show(report)
    rows = seen.rows() if seen else []
    for row in rows:
        print(f"{row['split']}: {row['pictures']}; {row['origin']}")
    if seen:
        print(*seen.sentences(), sep="\n")
    if refused:
        print(refused)
    if request.write:
        print(f"List: {report.write(request.write)}")
    elif report.problems:
        print("All of them in a list: the same with write=problems.csv")
    page = None
    if seen:
        page, said = draw(seen, report, config, request.sheet)
        print(said, end="\n" if said else "")
    found = {"pictures": report.pictures, "problems": report.rows(), "splits": rows, "refused": refused}
    return 2 if report.severe or refused else 0, found | (seen.document() | {"sheet": page} if seen else {})


def _loaded(config: Spec, request: Request) -> tuple[DatasetDict | None, Report, str]:
    """The splits, what the source found wrong, and why training would refuse the data; then there are no splits."""
    from adapt.data.check import check
    from adapt.data.problems import Report
    from adapt.verbs.doctoring.noise import refuse_without_labels

    folders = [path for path in (config.path, config.unlabelled_path) if path] if config.source == "folder" else []
    skips = {"on_error": "skip"} if "on_error" in type(config).model_fields else {}
    try:
        splits = load("data", config.source).load(config.model_copy(update=skips))
    except UserError as error:
        if not folders:
            raise
        reports = [check(folder, config.follow_links) for folder in folders]  # as they lie
        problems = [each for one in reports for each in one.problems]
        return None, Report(sum(each.pictures for each in reports), problems), str(error)
    if request.noise:
        refuse_without_labels(splits)
    # the embedded sources look at nothing
    return splits, splits.report if splits.report.pictures else check(splits), ""


def _joined(report: Report, more: list[Problem]) -> Report:
    """With what was found in the rows, but for what the source has told of the same picture."""
    from adapt.data.problems import Report

    told = {(problem.id, problem.problem) for problem in report.problems}
    return Report(report.pictures, report.problems + [one for one in more if (one.id, one.problem) not in told])


def _show(report: Report) -> None:
    """The severe problems, one a line; how many there are of the others."""
    from adapt.data.problems import KINDS

    for problem in report.severe:
        print(problem)
    for kind, count in report.counts().items():
        severe, todo = KINDS[kind]
        if not severe:
            print(f"{kind}: {count:,}; {todo}")
    print(report.summary())
