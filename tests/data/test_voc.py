"""Pascal VOC's XML: boxes as the development kit defines them, difficult objects as crowds, masks by the objects' numbers."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as Picture

from adapt.data.voc import Config, load
from adapt.plug import UserError
from adapt.vision.masks import unrle

SIZE = (40, 30)


def thing(name: str = "cup", box=(3, 4, 12, 13), difficult: int = 0, more: str = "") -> str:
    corners = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return (
        f"<object><name>{name}</name><pose>Left</pose><truncated>0</truncated><difficult>{difficult}</difficult>"
        f"<bndbox>{corners}</bndbox>{more}</object>"
    )


def xml(name: str, things: str, size=(40, 30)) -> str:
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><folder>VOC</folder><filename>{name}</filename>{sides}{things}</annotation>"


THINGS = thing("plate") + thing("cup", (20, 10, 40, 30), difficult=1)


@pytest.fixture
def voc(tmp_path, make):
    """Ten pictures in VOC's own folders, without lists."""
    root = tmp_path / "VOC"
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for i in range(10):
        make.picture(i, SIZE).save(root / "JPEGImages" / f"{i}.jpg")
        (root / "Annotations" / f"{i}.xml").write_text(xml(f"{i}.jpg", THINGS))
    return root


def lists(root, folder: str = "Main", **parts) -> None:
    (root / "ImageSets" / folder).mkdir(parents=True, exist_ok=True)
    for split, numbers in parts.items():
        (root / "ImageSets" / folder / f"{split}.txt").write_text("".join(f"{i}\r\n" for i in numbers))


def rows(splits) -> dict:
    return {row["id"]: row for part in splits.values() for row in part}


# ------------------------------------------------------------------------------------------------------------ what is read


def test_pixels_are_counted_from_one_and_difficult_objects_are_crowds(voc):
    splits = load(Config(path=str(voc)))
    row = rows(splits)["JPEGImages/4.jpg"]
    assert row["objects"] == {"bbox": [[2, 3, 12, 13], [19, 9, 40, 30]], "category": [1, 0], "iscrowd": [0, 1]}
    assert splits["train"].features["objects"]["category"].feature.names == ["cup", "plate"]
    assert [problem.detail for problem in splits.report.problems] == ["pose: 10 times"]


def test_a_box_that_begins_at_nought_says_how_pixels_are_counted(voc):
    (voc / "Annotations" / "0.xml").write_text(xml("0.jpg", thing(box=(0, 4, 12, 13))))
    assert rows(load(Config(path=str(voc))))["JPEGImages/4.jpg"]["objects"]["bbox"][0] == [3, 4, 12, 13]
    with pytest.raises(UserError, match=r"'JPEGImages/0\.jpg': box off the image"):
        load(Config(path=str(voc), first_pixel=1))


def test_the_lists_are_the_splits_and_what_none_names_is_counted(voc):
    lists(voc, train=range(5), val=[5, 6], test=[7])
    (voc / "ImageSets" / "Main" / "cup_train.txt").write_text("0 -1\n")
    splits = load(Config(path=str(voc)))
    assert {name: len(part) for name, part in splits.items()} == {"train": 5, "validation": 2, "test": 1}
    assert splits.origin["validation"] == "ImageSets/Main/val.txt"
    assert "files in Annotations that no list names: 2 times" in [problem.detail for problem in splits.report.problems]


def test_trainval_without_val_is_train(voc):
    lists(voc, trainval=range(8), val=[0, 1])
    assert {name: len(part) for name, part in load(Config(path=str(voc), test=0)).items()} == {"train": 6, "validation": 2}


@pytest.mark.parametrize("split", [True, False])
def test_xml_beside_the_pictures_is_read(tmp_path, make, split):
    for number, name in enumerate(["train", "valid"] if split else ["."]):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for i in range(6):
            make.picture(10 * number + i, SIZE).save(folder / f"{i}.png")
            (folder / f"{i}.xml").write_text(xml(f"{i}.jpg", THINGS))  # the picture was saved in another format since
    splits = load(Config(path=str(tmp_path / "photos"), test=0))
    assert {name: len(part) for name, part in splits.items()} == (
        {"train": 6, "validation": 6} if split else {"train": 5, "validation": 1}
    )
    assert ("valid/3.png" if split else "3.png") in rows(splits)


def drawn(root, i: int) -> np.ndarray:
    """Object 1, object 2, and a rim that nobody judged."""
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[3:13, 2:12], mask[9:30, 19:40], mask[29] = 1, 2, 255
    image = Picture.fromarray(mask)
    image.putpalette([40, 10, 90] * 256)
    (root / "SegmentationObject").mkdir(exist_ok=True)
    image.save(root / "SegmentationObject" / f"{i}.png")
    return mask


def test_numbers_in_segmentation_object_are_the_objects_masks(voc):
    for i in range(10):
        mask = drawn(voc, i)
    row = rows(load(Config(path=str(voc))))["JPEGImages/4.jpg"]
    assert [(unrle(code) == (mask == number + 1)).all() for number, code in enumerate(row["objects"]["mask"])] == [True, True]
    expected = np.select([mask == 1, mask == 2, mask == 255], [2, 255, 255], 0)  # a plate, and a cup that is difficult
    assert (np.asarray(row["segmentation"]) == expected).all()


def test_masks_of_some_pictures_are_counted_and_their_own_list_reads_them(voc):
    for i in range(4):
        drawn(voc, i)
    splits = load(Config(path=str(voc)))
    assert "mask" not in splits["train"].features["objects"] and "segmentation" not in splits["train"].column_names
    said = next(problem.detail for problem in splits.report.problems if problem.id == "SegmentationObject")
    assert said.startswith("masks of 4 of 10 pictures; data.sets=Segmentation reads those that have one")
    lists(voc, "Segmentation", train=[0, 1], val=[2, 3])
    splits = load(Config(path=str(voc), sets="Segmentation", test=0))
    assert {name: len(part) for name, part in splits.items()} == {"train": 2, "validation": 2}
    assert "mask" in splits["train"].features["objects"]


def test_utf_16_and_windows_line_ends_are_no_mistakes(voc):
    text = '<?xml version="1.0" encoding="UTF-16"?>\r\n' + xml("0.jpg", THINGS).replace("><", ">\r\n<")
    (voc / "Annotations" / "0.xml").write_bytes(text.encode("utf-16"))
    (voc / "Annotations" / "1.xml").write_bytes(b"\xef\xbb\xbf" + xml("1.jpg", THINGS).encode())
    found = rows(load(Config(path=str(voc))))
    assert len(found["JPEGImages/0.jpg"]["objects"]["bbox"]) == len(found["JPEGImages/1.jpg"]["objects"]["bbox"]) == 2


# ----------------------------------------------------------------------------------------------------------- what is wrong

BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]>' + xml("&c;", THINGS)
FILE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>' + xml("&b;", THINGS)
MISTAKES = {
    "entities": (BOMB, r"'Annotations/0\.xml': unreadable annotations \(it has a DOCTYPE"),
    "foreign file": (FILE, r"it has a DOCTYPE"),
    "in UTF-16": (('<?xml version="1.0" encoding="UTF-16"?>' + BOMB).encode("utf-16"), r"it has a DOCTYPE"),
    "truncated": (xml("0.jpg", THINGS)[:-40], r"unreadable annotations \(.*line 1, column \d+"),
    "empty": ("", r"unreadable annotations \(no element found"),
    "no XML": ("cup 3 4", r"unreadable annotations \(syntax error: line 1, column 0"),
    "another root": ("<html/>", r"its root is <html>, and must be <annotation>"),
    "unknown encoding": ('<?xml version="1.0" encoding="klingon"?><annotation/>', r"unreadable annotations \(unknown encoding"),
    "reversed": (
        xml("0.jpg", thing(box=(12, 4, 3, 13))),
        r"'JPEGImages/0\.jpg': box reversed \(Annotations/0\.xml, object 1 'cup': 11, 3",
    ),
    "off": (xml("0.jpg", thing(box=(12, 4, 43, 13))), r"box off the image .*the image is 40 × 30"),
    "words": (xml("0.jpg", thing(box=("a", 4, 43, 13))), r"box unreadable \(.*'a, 4, 43, 13'"),
    "NaN": (xml("0.jpg", thing(box=("nan", 4, 43, 13))), r"box unreadable \(.*nan, 4"),
    "no box": (
        xml("0.jpg", "<object><name>cup</name></object>"),
        r"box unreadable \(Annotations/0\.xml, object 1 'cup': no bndbox",
    ),
    "no corner": (xml("0.jpg", thing()).replace("<xmin>3</xmin>", ""), r"box unreadable"),
    "rotated": (xml("0.jpg", thing(more="<robndbox><cx>3</cx></robndbox>")), r"a rotated box, robndbox, which is not read"),
    "nameless": (xml("0.jpg", thing("")), r"box unreadable \(.*object 1: it has no name"),
    "another size": (xml("0.jpg", THINGS, (30, 40)), r"picture of another size \(40 × 30 .*the annotations say 30 × 40"),
    "outside": (xml("/etc/passwd", THINGS), r"'/etc/passwd': leads outside \(its file name in 0\.xml\)"),
    "parents": (xml("../../../0.jpg", THINGS), r"leads outside"),
    "taken": (
        xml("1.jpg", THINGS),
        r"'JPEGImages/1\.jpg': picture twice \(the picture of Annotations/1\.xml and of another file",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_one_clear_line(voc, name):
    content, expected = MISTAKES[name]
    (voc / "Annotations" / "0.xml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=expected) as error:
        load(Config(path=str(voc)))
    assert len(str(error.value).splitlines()) == 1
    splits = load(Config(path=str(voc), on_error="skip"))
    assert sum(map(len, splits.values())) == (8 if name == "taken" else 9) and splits.report.severe


def test_names_in_lists_may_have_spaces_and_a_column_of_a_class_behind_them(voc):
    for old, new in (("0", "my picture"), ("1", "my picture 1"), ("2", "my other picture")):
        (voc / "JPEGImages" / f"{old}.jpg").rename(voc / "JPEGImages" / f"{new}.jpg")
        (voc / "Annotations" / f"{old}.xml").unlink()
        (voc / "Annotations" / f"{new}.xml").write_text(xml(f"{new}.jpg", THINGS))
    lists(voc, train=["my picture", "my picture 1", "my other picture  1", "3 -1", "4\t0"], val=["5  1", "6"])
    splits = load(Config(path=str(voc), test=0))
    names = ("3", "4", "my other picture", "my picture", "my picture 1")
    assert sorted(splits["train"]["id"]) == sorted(f"JPEGImages/{name}.jpg" for name in names)
    assert sorted(splits["validation"]["id"]) == ["JPEGImages/5.jpg", "JPEGImages/6.jpg"]


def test_pictures_and_files_that_are_not_there_are_named(voc):
    (voc / "JPEGImages" / "0.jpg").unlink()
    lists(voc, train=[*range(9), 77, 3])
    with pytest.raises(UserError) as error:
        load(Config(path=str(voc)))
    lines = str(error.value).splitlines()
    assert len(lines) == 4
    assert any("'Annotations/77.xml': unreadable annotations (no file; train.txt names it)" in line for line in lines)
    assert any("'JPEGImages/0.jpg': missing picture" in line for line in lines)
    assert any("picture twice ('3' in ImageSets, train.txt)" in line for line in lines)


@pytest.mark.parametrize("kind", ["size", "colours", "no pixel", "no picture"])
def test_a_mask_that_does_not_fit_is_named(voc, kind):
    for i in range(10):
        drawn(voc, i)
    place = voc / "SegmentationObject" / "0.png"
    if kind == "no picture":
        place.write_bytes(b"mask")
    else:
        size = (10, 10) if kind == "size" else SIZE
        Picture.new("RGB" if kind == "colours" else "L", size).save(place)
    expected = {
        "size": r"'JPEGImages/0\.jpg': mask of another size \(SegmentationObject/0\.png: 10 × 10; the picture is 40 × 30\)",
        "colours": r"unreadable mask \(SegmentationObject/0\.png: its pixels are colours \(RGB\)\)",
        "no pixel": r"mask without pixels \(Annotations/0\.xml, object 1 'plate': no pixel 1 in the PNG\)",
        "no picture": r"unreadable mask \(SegmentationObject/0\.png: not an image",
    }[kind]
    with pytest.raises(UserError, match=expected):
        load(Config(path=str(voc)))
    assert sum(map(len, load(Config(path=str(voc), on_error="skip")).values())) == 9


def test_a_folder_without_xml_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"no XML of VOC's"):
        load(Config(path=str(tmp_path)))
