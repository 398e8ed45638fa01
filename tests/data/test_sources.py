"""Folders and zips as people have them: what is found, in which order, and what is left out."""

import errno
import os
import pathlib
import re
import shutil
import struct
import zipfile
import zlib

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


def zipped(path, contents, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def opened(folder, kind, contents):
    """The source that a folder or a zip with these files is."""
    if kind == "zip":
        return sources.open_path(zipped(folder / "x.zip", contents))
    for name, data in contents.items():
        fill(folder, name, data=data)
    return sources.open_path(folder)


def reasons(source):
    return dict(source.skipped)


NAMES = [
    "00000001_(2).jpg",
    "B.PNG",
    "a b/c d.JpEg",
    "a.tif",
    "deep/er/still/x.bmp",
    "e.webp",
    "f.gif",
    "g.jfif",
    "h.JPE",
    "i.JFIF",
    "j.dib",
    "without a suffix",
    "naïve/日本.png",
    "z.TIFF",
    "[1].png",
]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_every_suffix_in_any_case_and_any_name_is_found_in_sorted_order(tmp_path, kind):
    if kind == "folder":
        fill(tmp_path, *NAMES)
        source = sources.open_path(tmp_path)
    else:
        source = sources.open_path(zipped(tmp_path / "x.zip", dict.fromkeys(reversed(NAMES), PNG)))
    assert list(source.names) == sorted(NAMES)
    assert all(source.read(i) == PNG for i in range(len(NAMES)))
    assert not source.skipped


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_what_is_no_image_or_hidden_is_left_out_without_a_word(tmp_path, kind):
    contents = dict.fromkeys(["a.png", "labels.csv", "a.png~", "a.jpg_original", *SYSTEM], PNG)
    contents |= {
        "README": b"BMW and II are no pictures.",
        "Thumbs.db": b"\xd0\xcf\x11\xe0",
        "empty": b"",
    }
    source = opened(tmp_path, kind, contents)
    assert list(source.names) == ["a.png"]
    assert not source.skipped


SYSTEM = [
    *(".hidden.png", ".git/b.png", "__MACOSX/._a.png", ".thumbnails/x/a.jpg", ".Trash-1000/a.png"),
    *("@eaDir/a.png/SYNOPHOTO_THUMB_XL.jpg", "deep/@EADIR/b.jpg", "#recycle/a.png"),
    *("@Recycle/a.png", "@Recently-Snapshot/a.png", ".@__thumb/a.png", "$RECYCLE.BIN/S-1/a.png"),
    *("System Volume Information/a.png", "lost+found/a.png", ".picasaoriginals/a.png"),
    *("SYNOPHOTO_THUMB_M.jpg", "b.jpg@SynoResource", "deep/~snapshot/a.png"),
]


@pytest.mark.parametrize("name", ["@eaDir", ".thumbnails", "#recycle"])
def test_a_folder_that_is_named_is_read_wherever_it_lies(tmp_path, name):
    fill(tmp_path, f"{name}/mine/a.png")
    for path in (tmp_path / name, tmp_path / name / "mine"):
        assert len(sources.open_path(path).names) == 1


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("form", ["png", "jpeg", "webp", "bmp", "gif", "tiff"])
def test_where_the_name_does_not_tell_the_content_does(tmp_path, kind, form):
    data = encode(picture(), form)
    names = ["1f3a", "photo.jpg_large", "scan 12.5", "x.apng" if form == "png" else "y.pjpeg"]
    source = opened(tmp_path, kind, dict.fromkeys(names, data))
    assert list(source.names) == sorted(names)
    assert source.read(0) == data


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_an_image_of_another_format_without_a_suffix_is_listed(tmp_path, kind):
    heads = {
        "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "avif": b"\0\0\0\x20ftypavif\0\0\0\0avifmif1",
        "jxl": b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl ",
        "jp2": b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 ",
        "psd": b"8BPS\0\1" + bytes(20),
    }
    # A film, whose first bytes are much like those of HEIC.
    film = {"mp4": b"\0\0\0\x18ftypmp42\0\0\0\0isommp42"}
    source = opened(tmp_path, kind, {"a.png": PNG, "raw.CR3": b"x"} | heads | film)
    assert list(source.names) == ["a.png"]
    assert set(reasons(source)) == {"raw.CR3", *heads}


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_photographs_of_a_format_that_is_not_read_are_listed(tmp_path, kind):
    names = ["a.png", "IMG_1.HEIC"]
    if kind == "folder":
        fill(tmp_path, *names)
        source = sources.open_path(tmp_path)
    else:
        source = sources.open_path(zipped(tmp_path / "x.zip", dict.fromkeys(names, PNG)))
    assert ".heic is a format that is not read: convert" in reasons(source)["IMG_1.HEIC"]


def test_links_are_followed_once_and_loops_are_listed(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    fill(root, "real/a.png")
    fill(outside, "b.png")
    (root / "0_elsewhere").symlink_to(outside)
    (root / "1_again").symlink_to(root / "real")
    (root / "real" / "up").symlink_to(root)
    (root / "itself.png").symlink_to(root / "itself.png")
    (root / "nowhere.png").symlink_to(root / "gone.png")
    (root / "file.png").symlink_to(outside / "b.png")
    source = sources.open_path(root)
    assert list(source.names) == ["0_elsewhere/b.png", "file.png", "real/a.png"]
    found = reasons(source)
    assert set(found) == {"1_again", "real/up", "itself.png", "nowhere.png"}
    assert found["1_again"] == found["real/up"] == "a link to a folder that is read"
    assert found["itself.png"].startswith("cannot be read: Too many levels of symbolic links")
    assert found["nowhere.png"].startswith("cannot be read: No such file")


def test_a_pipe_is_not_waited_for(tmp_path):
    fill(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe")
    source = sources.open_path(tmp_path)
    assert reasons(source) == {"pipe.png": "not a regular file"}


@pytest.mark.parametrize("failing", ["b.png", "b"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_file_that_cannot_be_read_is_listed_and_makes_another_identity(
    tmp_path, failing, number, monkeypatch
):
    fill(tmp_path, "a.png", failing)
    whole, real = sources.open_path(tmp_path), pathlib.Path.open

    def refused(path, *arguments, **options):
        if path.name == failing:
            raise OSError(number, os.strerror(number))
        return real(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "open", refused)
        source = sources.open_path(tmp_path)
        assert list(source.names) == ["a.png"]
        assert reasons(source) == {failing: f"cannot be read: {os.strerror(number)}"}
        with pytest.raises(decoding.Unreadable, match=os.strerror(number)):
            whole.read(list(whole.names).index(failing))
    assert source.identity != whole.identity
    assert sources.open_path(tmp_path).identity == whole.identity


def test_a_file_that_is_gone_or_changes_after_it_was_listed_is_not_taken(tmp_path):
    fill(tmp_path, "a.png", "b.png")
    source = sources.open_path(tmp_path)
    (tmp_path / "a.png").unlink()
    (tmp_path / "b.png").write_bytes(encode(picture(1), "png"))
    for position in range(2):
        with pytest.raises(decoding.Unreadable):
            source.read(position)


def test_a_zip_that_changes_after_it_was_listed_is_not_taken(tmp_path):
    path = zipped(tmp_path / "x.zip", {"a.png": PNG})
    source = sources.open_path(path)
    assert source.read(0) == PNG
    zipped(tmp_path / "y.zip", {"a.png": PNG}).replace(path)
    with pytest.raises(decoding.Unreadable):
        source.read(0)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), OSError("bad stream")])
def test_a_zip_that_cannot_be_read_is_told_from_a_damaged_one(tmp_path, error, monkeypatch):
    source = sources.open_path(zipped(tmp_path / "x.zip", {"a.png": PNG}))

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(zipfile.ZipFile, "open", fail)
    with pytest.raises(decoding.BadImage) as caught:
        source.read(0)
    # bz2 raises an OSError without a number where data is damaged.
    assert isinstance(caught.value, decoding.Unreadable) == (error.errno is not None)


def test_folders_and_files_without_permission(tmp_path):
    fill(tmp_path, "a.png", "b.png", "closed/c.png", "listed/d.png")
    modes = {"b.png": 0, "closed": 0, "listed": 0o444}
    for name, mode in modes.items():
        (tmp_path / name).chmod(mode)
    try:
        if os.access(tmp_path / "b.png", os.R_OK):
            pytest.skip("the superuser may read everything")
        source = sources.open_path(tmp_path)
        assert list(source.names) == ["a.png"]
        denied = "cannot be read: Permission denied"
        assert reasons(source) == dict.fromkeys(["b.png", "closed", "listed/d.png"], denied)
        with pytest.raises(UserError, match=r"closed/c\.png.*Permission denied"):
            sources.open_path(tmp_path / "closed" / "c.png")
    finally:
        for name in modes:
            (tmp_path / name).chmod(0o700)
    restored = sources.open_path(tmp_path)
    assert list(restored.names) == ["a.png", "b.png", "closed/c.png", "listed/d.png"]
    assert restored.identity != source.identity


def test_a_name_that_is_no_utf_8_is_read(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(path, "wb") as file:  # noqa: PTH123 - a name of bytes
        file.write(PNG)
    source = sources.open_path(tmp_path)
    assert source.read(0) == PNG


def test_gigantic_files_are_not_even_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_BYTES", len(PNG))
    fill(tmp_path, "a.png")
    fill(tmp_path, "b.png", data=PNG + b"x")
    assert reasons(sources.open_path(tmp_path)) == {"b.png": f"too large: {len(PNG) + 1} bytes"}
    path = zipped(tmp_path / "x.zip", {"a.png": PNG, "b.png": PNG + b"x"})
    assert reasons(sources.open_path(path)) == {"b.png": f"too large: {len(PNG) + 1} bytes"}


@pytest.mark.parametrize(
    "name", ["../a.png", "b/../../a.png", "/etc/a.png", "C:\\a.png", "..\\a.png"]
)
def test_names_that_lead_out_of_a_zip_are_listed(tmp_path, name):
    path = zipped(tmp_path / "x.zip", {"fine.png": PNG, name: PNG})
    source = sources.open_path(path)
    assert list(source.names) == ["fine.png"]
    assert list(reasons(source).values()) == ["a name that leads out of the zip"]


def test_an_encrypted_entry_is_listed(tmp_path):
    path = zipped(tmp_path / "x.zip", {"a.png": PNG, "b.png": PNG})
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")  # the central directory's last entry: flags at offset 8
    data[at + 8] |= 1
    path.write_bytes(data)
    assert reasons(sources.open_path(path)) == {"b.png": "encrypted"}


def test_damage_in_a_zip_is_found_by_its_checksum(tmp_path):
    bmp = encode(picture(), "bmp")  # which has none of its own
    path = zipped(tmp_path / "x.zip", {"a.bmp": bmp, "b.bmp": bmp})
    data = bytearray(path.read_bytes())
    data[data.index(bmp) + 500] ^= 1
    path.write_bytes(data)
    source = sources.open_path(path)
    with pytest.raises(decoding.BadImage, match="damaged in the zip: Bad CRC-32"):
        source.read(0)
    assert source.read(1) == bmp


def test_an_unknown_compression_is_a_reason(tmp_path):
    path = zipped(tmp_path / "x.zip", {"a.png": PNG})
    data = bytearray(path.read_bytes())
    for start, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        struct.pack_into("<H", data, data.rindex(start) + offset, 97)
    path.write_bytes(data)
    with pytest.raises(decoding.BadImage, match=r"damaged in the zip: .*compression"):
        sources.open_path(path).read(0)


def test_two_entries_of_one_name_are_two_images(tmp_path):
    other = encode(picture(1), "png")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.png", PNG)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.png", other)
    source = sources.open_path(tmp_path / "x.zip")
    assert {source.read(0), source.read(1)} == {PNG, other}


@pytest.mark.parametrize(
    ("contents", "pattern"),
    [
        ({}, "found: nothing"),
        ({"a.txt": b"x", "b.txt": b"x", "c": b"x"}, r"found: 2 \.txt; 1 without a suffix"),
        ({"a.heic": b"x"}, r"found: a\.heic \(\.heic is a format that is not read"),
    ],
)
def test_a_source_without_images_says_what_it_holds(tmp_path, contents, pattern):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    for path in (folder, zipped(tmp_path / "x.zip", contents)):
        with pytest.raises(UserError, match=f"{re.escape(str(path))} holds no image .*{pattern}"):
            sources.open_path(path)


def test_a_path_with_nothing_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"data\.path is .*gone, where there is nothing: name a"):
        sources.open_path(tmp_path / "gone")


@pytest.mark.parametrize("cut", [0, 10, 200, -1])
def test_a_file_that_is_no_zip_is_named(tmp_path, cut):
    path = zipped(tmp_path / "x.zip", {"a.png": PNG})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"x\.zip cannot be read as a zip \(.+\)\."):
        sources.open_path(path)


def test_the_identity_follows_names_and_contents(tmp_path):
    fill(tmp_path / "a", "1.png", "2.png")

    def identity():
        return sources.open_path(tmp_path / "a", tmp_path / "cache.json").identity

    first = identity()
    fill(tmp_path / "a", "labels.csv")
    os.utime(tmp_path / "a" / "2.png", ns=(10**18, 10**18))
    assert identity() == first
    (tmp_path / "a" / "2.png").write_bytes(encode(picture(1), "png"))
    changed = identity()
    fill(tmp_path / "a", "3.png")
    added = identity()
    (tmp_path / "a" / "1.png").rename(tmp_path / "a" / "4.png")
    renamed = identity()
    (tmp_path / "a" / "gone.png").symlink_to("nowhere")  # so that the list of the skipped is new
    assert len({first, changed, added, renamed, identity()}) == 5


def test_folders_of_the_same_names_sizes_and_times_differ_and_copies_do_not(tmp_path):
    for name, data in (("a", PNG), ("b", PNG[:-1] + b"x"), ("c", PNG)):
        fill(tmp_path / name, "1.png", data=data)
        os.utime(tmp_path / name / "1.png", ns=(10**18, 10**18))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "1.png").hardlink_to(tmp_path / "a" / "1.png")
    a, b, c, d = (sources.open_path(tmp_path / name).identity for name in "abcd")
    assert a != b
    assert a == c == d


def test_zips_of_the_same_names_sizes_times_and_checksums_differ_and_copies_do_not(tmp_path):
    a, b = PNG + b"plumless", PNG + b"buckeroo"
    assert zlib.crc32(a) == zlib.crc32(b)
    for name, data in (("a", a), ("b", b)):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(zipfile.ZipInfo("x.png"), data)  # of 1980
        os.utime(tmp_path / name, ns=(10**18, 10**18))
    shutil.copy(tmp_path / "a", tmp_path / "c")
    a, b, c = (sources.open_path(tmp_path / name).identity for name in "abc")
    assert a != b
    assert a == c
