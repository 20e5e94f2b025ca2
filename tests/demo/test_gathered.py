"""Uploaded files and zips become one folder of pictures, and nothing is written beside it."""

from __future__ import annotations

import io
import stat
from zipfile import ZipFile, ZipInfo

import pytest
from PIL import Image

from adapt.demo import gathered
from adapt.demo.gathered import gather
from adapt.plug import UserError


def packed(path, *members) -> str:
    """A zip of (name, bytes), at `path`."""
    with ZipFile(path, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return str(path)


@pytest.fixture(scope="module")
def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "PNG")
    return out.getvalue()


def inside(folder) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_pictures_and_zips_become_one_folder_and_other_files_are_counted(tmp_path, png):
    (tmp_path / "one").mkdir()
    for place in (tmp_path, tmp_path / "one"):
        (place / "a.png").write_bytes(png)
    zipped = packed(tmp_path / "b.zip", ("x/a.png", png), ("x/notes.txt", b"no"), ("__MACOSX/x/._a.png", b"no"), ("y/", b""))
    files = [str(tmp_path / "a.png"), str(tmp_path / "one" / "a.png"), zipped]
    assert gather(files, tmp_path / "out") == 2
    assert inside(tmp_path / "out") == ["a-2.png", "a.png", "b/x/a.png"]
    assert gather([zipped], tmp_path / "alone") == 2 and inside(tmp_path / "alone") == ["x/a.png"]


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/tmp/evil.png", "..\\evil.png"])
def test_a_zip_never_writes_outside_its_place(tmp_path, png, name):
    (tmp_path / "in").mkdir()
    zipped = packed(tmp_path / "in" / "b.zip", ("good.png", png), (name, png))
    with pytest.raises(UserError, match=r"would lie outside its folder; nothing was unpacked"):
        gather([zipped], tmp_path / "out")
    assert inside(tmp_path) == ["in/b.zip"]


def test_links_passwords_and_what_is_no_zip_are_refused(tmp_path, png):
    link = ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(UserError, match=r"'link.png' in 'a.zip' is a link"):
        gather([packed(tmp_path / "a.zip", (link, b"/etc/passwd"))], tmp_path / "out")
    (tmp_path / "b.zip").write_bytes(b"PK no zip at all")
    with pytest.raises(UserError, match=r"zip: 'b.zip' cannot be unpacked: File is not a zip file"):
        gather([str(tmp_path / "b.zip")], tmp_path / "out")
    with pytest.raises(UserError, match=r"cannot be unpacked"):  # a file where another member needs a folder
        gather([packed(tmp_path / "c.zip", ("a.png", png), ("a.png/b.png", png))], tmp_path / "out")
    with pytest.raises(UserError, match="there is no picture among them"):
        gather([packed(tmp_path / "d.zip", ("notes.txt", b"no"))], tmp_path / "out")


def test_too_much_is_refused_before_it_is_unpacked(tmp_path, png, monkeypatch):
    zipped = packed(tmp_path / "a.zip", *((f"{number}.png", png) for number in range(4)))
    monkeypatch.setattr(gathered, "MOST", 3)
    with pytest.raises(UserError, match=r"more than 3 pictures"):
        gather([zipped], tmp_path / "out")
    monkeypatch.setattr(gathered, "MOST", 9)
    monkeypatch.setattr(gathered, "BYTES", 100)
    with pytest.raises(UserError, match=r"MB unpacked"):
        gather([zipped], tmp_path / "out")
    assert not (tmp_path / "out").exists()
