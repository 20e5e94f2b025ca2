"""What is wrong with the data, before anything learns from them: `adapt doctor data`."""

from __future__ import annotations

from typing import Any

from adapt.plug import Spec, UserError, load


def look(config: Spec, list_file: str | None = None) -> tuple[int, dict[str, Any]]:
    """Print what a source finds wrong with its data, and its splits; write the whole list.

    Args:
        config: of a source.
        list_file: a CSV, or a JSON by its name.

    Returns:
        2 when there are severe problems, or training would refuse these data; else 0. And the same for JSON: pictures, problems,
        splits, refused.
    """
    from adapt.data.auto import chosen
    from adapt.data.check import check
    from adapt.data.split import described

    if config.source == "auto":
        config, said = chosen(config)
        print(said)
    folders = [path for path in (config.path, config.unlabelled_path) if path] if config.source == "folder" else []
    skips = {"on_error": "skip"} if "on_error" in type(config).model_fields else {}
    refused, rows = "", []
    try:
        splits = load("data", config.source).load(config.model_copy(update=skips))
        report = splits.report if splits.report.pictures else check(splits)  # the embedded sources look at nothing
        rows = described(splits)
    except UserError as error:
        if not folders:
            raise
        refused = str(error)
        report = _as_they_lie(folders, config.follow_links)
    _show(report)
    for row in rows:
        print(f"{row['split']}: {row['pictures']}; {row['origin']}")
    if refused:
        print(refused)
    if list_file:
        print(f"List: {report.write(list_file)}")
    elif report.problems:
        print("All of them in a list: the same with write=problems.csv")
    found = {"pictures": report.pictures, "problems": report.rows(), "splits": rows, "refused": refused}
    return 2 if report.severe or refused else 0, found


def _as_they_lie(folders: list[str], follow: bool):
    """The problems of folders that make no data set."""
    from adapt.data.check import check
    from adapt.data.problems import Report

    reports = [check(folder, follow) for folder in folders]
    return Report(sum(each.pictures for each in reports), [each for one in reports for each in one.problems])


def _show(report) -> None:
    """The severe problems, one a line; how many there are of the others."""
    from adapt.data.problems import KINDS

    for problem in report.severe:
        print(problem)
    for kind, count in report.counts().items():
        severe, todo = KINDS[kind]
        if not severe:
            print(f"{kind}: {count}; {todo}")
    print(report.summary())
