"""Pictures in tars, as webdataset, img2dataset and CLIP_benchmark write them: members of one key are a sample.

    000001.jpg  000001.cls                                          → a picture and its class: a number, or a name
    000002.webp 000002.txt                                          → a picture and its captions, one a line
    000003.jpg  000003.json                                         → the same in `label` and `caption`, as img2dataset's

    data: {source: webdataset, path: cars}                          # cars/train/0.tar …, cars/test/0.tar …, cars/classnames.txt
    data: {source: webdataset, path: "shards/{000..009}.tar"}       # a pattern, a folder of tars, or one tar

A number is a line of classnames.txt (from 0), beside the tars or in a folder above; without that file it is the class's name. Splits are
those of folders train, val, test, or of such words in the tars' names; what is missing is drawn from train. Members of other kinds are
passed over and counted. Nothing is unpacked: the samples are copied once into Arrow files in `$ADAPT_CACHE/webdataset`, a file a tar,
which needs as much disk as the tars, and from then on they are read from there. A tar that has changed is copied again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapt.data.config import ClassesConfig

if TYPE_CHECKING:
    from adapt.data.split import Splits


class Config(ClassesConfig):
    """Where the tars lie, and how their samples are split."""

    source: str = "webdataset"
    """This file."""
    path: str
    """A tar, a folder of tars, a folder with folders train, val and test that have tars, or a pattern such as shards/{000..009}.tar."""
    follow_links: bool = False
    """Read tars of a folder that are links out of it; those that `path` itself names are read in any case."""

    def check_paths(self) -> None:
        """There must be tars."""
        from adapt.data.webdataset.tars import tars

        tars(self.path, self.follow_links)


def load(config: Config) -> Splits:
    """Read the tars.

    Returns:
        `Splits` with train and, where there are any, validation and test: id (the tar's path below the folder, and the key), image,
        label, where samples have classes, and caption (list of texts), where every sample has one.

    Raises:
        UserError: there is no tar, no tar for train, no sample that can be used, or a single class; the disk is too small; samples have
            several classes each; `data.classes` names a class that the data have not, or leaves out all; with `on_error: stop`, samples or
            tars that cannot be used.
    """
    from adapt.data.problems import Report
    from adapt.data.webdataset.rows import classified, gathered, splits
    from adapt.data.webdataset.tars import class_names, tars

    root, shards, missing = tars(config.path, config.follow_links)
    if config.on_error == "stop" and Report(problems=missing).severe:  # before gigabytes are copied
        raise Report(problems=missing).error("data.path")
    names, twice = class_names(root, shards)
    samples, report = gathered(config, shards)
    report = Report(report.pictures, missing + twice + report.problems)
    classified(config, samples, names, report)
    return splits(config, samples, report)
