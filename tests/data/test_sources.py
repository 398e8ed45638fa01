"""Listing of folders and zips: which files, and in which order."""

import os
import re
import zipfile

import pytest

from tests.data.test_decoding import encode, picture
from vaegan_jax.data import decoding, sources
from vaegan_jax.errors import UserError

PNG = encode(picture(), "png")


def fill(folder, *names, data=PNG):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def zipped(path, contents):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def open_names(folder, kind, names):
    """Writes files to a folder or a zip, and opens it."""
    if kind == "zip":
        return sources.open_path(zipped(folder / "x.zip", dict.fromkeys(names, PNG)))
    fill(folder, *names)
    return sources.open_path(folder)


NAMES = [
    *("00000001_(2).jpg", "B.PNG", "[1].png", "a b/c d.JpEg", "a.tif", "deep/er/still/x.bmp"),
    *("e.webp", "f.gif", "g.jfif", "h.JPE", "j.dib", "k.heic", "naïve/日本.png", "z.TIFF"),
]
IGNORED = [
    *("labels.csv", "a.png~", "a.jpg_large", "none", ".hidden.png", ".git/b.png", "a.cr2"),
    *("__MACOSX/._a.png", "@eaDir/a.png/SYNOPHOTO_THUMB_XL.jpg", "deep/@EADIR/b.jpg"),
    *("#recycle/a.png", "@Recycle/a.png", "$RECYCLE.BIN/S-1/a.png", "lost+found/a.png"),
    *(".@__thumb/a.png", "System Volume Information/a.png"),
]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_images_are_listed_in_order_and_other_files_ignored(tmp_path, kind):
    source = open_names(tmp_path, kind, [*reversed(NAMES), *IGNORED])
    assert source.names == NAMES
    assert all(source.read(i) == PNG for i in range(len(NAMES)))


def test_links_are_followed_once_and_pipes_not_read(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    fill(root, "real/a.png")
    fill(outside, "b.png")
    (root / "elsewhere").symlink_to(outside)
    (root / "z_again").symlink_to(root / "real")
    (root / "real" / "up").symlink_to(root)
    (root / "itself.png").symlink_to(root / "itself.png")
    (root / "nowhere.png").symlink_to(root / "gone.png")
    (root / "file.png").symlink_to(outside / "b.png")
    os.mkfifo(root / "pipe.png")
    assert sources.open_path(root).names == ["elsewhere/b.png", "file.png", "real/a.png"]


def test_damaged_zip_entries_are_bad_images(tmp_path):
    bmp = encode(picture(), "bmp")  # which has no checksum
    path = zipped(tmp_path / "x.zip", {"a.bmp": bmp, "b.bmp": bmp, "c.bmp": bmp})
    data = bytearray(path.read_bytes())
    data[data.index(bmp) + 500] ^= 1
    data[data.rindex(b"PK\x01\x02") + 8] |= 1  # the flags of the last entry: encrypted
    path.write_bytes(data)
    source = sources.open_path(path)
    for index, reason in ((0, "CRC-32"), (2, "encrypted")):
        with pytest.raises(decoding.BadImage, match=reason):
            source.read(index)
    assert source.read(1) == bmp


@pytest.mark.parametrize("contents", [{}, {"a.txt": b"x", "c": b"x"}])
def test_source_without_images_is_refused(tmp_path, contents):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, data in contents.items():
        fill(folder, name, data=data)
    for path in (folder, zipped(tmp_path / "x.zip", contents)):
        with pytest.raises(UserError, match=re.escape(f"{path}, which holds no usable image")):
            sources.open_path(path)


def test_missing_or_damaged_source_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"data\.path is .*gone"):
        sources.open_path(tmp_path / "gone")
    path = zipped(tmp_path / "x.zip", {"a.png": PNG})
    complete = path.read_bytes()
    for end in (0, 10, 200, -1):
        path.write_bytes(complete[:end])
        with pytest.raises(UserError, match=r"x\.zip.* cannot be read \(.+\)"):
            sources.open_path(path)

    def scandir(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match="Permission denied"):
        sources.open_path(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_identity_depends_on_names_and_contents_only(tmp_path, kind):
    def identity(contents, moved="", ns=10**18):
        folder = tmp_path / f"{moved}{len(contents)}"
        folder.mkdir(exist_ok=True)
        for name, data in contents.items():
            fill(folder, name, data=data)
            os.utime(folder / name, ns=(ns, ns))
        zip_path = zipped(tmp_path / f"{moved}x.zip", contents)
        return sources.open_path(zip_path if kind == "zip" else folder).identity

    first = identity({"a.png": PNG})
    assert identity({"a.png": PNG}, moved="elsewhere") == first
    assert identity({"a.png": PNG, "labels.csv": b"x"}) == first
    changed = [{"a.png": PNG + b"x"}, {"a.png": PNG, "b.png": PNG}, {"b.png": PNG}]
    edited = identity({"a.png": PNG[:-1] + b"x"}, ns=10**18 + 1)  # of the same size
    assert len({first, edited, *(identity(x, moved=str(i)) for i, x in enumerate(changed))}) == 5
