"""Folders and zips as people have them: what is found, in which order, and what is left out."""

import os
import re
import struct
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


def zipped(path, contents, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


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
    names = ["a.png", "labels.csv", "README", ".hidden.png", ".git/b.png", "__MACOSX/._a.png"]
    if kind == "folder":
        fill(tmp_path, *names)
        source = sources.open_path(tmp_path)
    else:
        source = sources.open_path(zipped(tmp_path / "x.zip", dict.fromkeys(names, PNG)))
    assert list(source.names) == ["a.png"]
    assert not source.skipped


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
    source = sources.open_path(tmp_path)
    assert reasons(source) == {"pipe.png": "not a regular file"}


def test_a_file_that_cannot_be_read_has_a_reason(tmp_path):
    fill(tmp_path, "a.png", "b.png")
    source = sources.open_path(tmp_path)
    (tmp_path / "b.png").unlink()
    with pytest.raises(decoding.BadImage, match="cannot be read: No such file"):
        source.read(1)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_folder_and_a_file_without_permission(tmp_path):
    fill(tmp_path, "a.png", "b.png", "closed/c.png")
    (tmp_path / "b.png").chmod(0)
    (tmp_path / "closed").chmod(0)
    try:
        source = sources.open_path(tmp_path)
        assert reasons(source) == {"closed": "cannot be read: Permission denied"}
        with pytest.raises(decoding.BadImage, match="cannot be read: Permission denied"):
            source.read(1)
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_a_name_that_is_no_utf_8_is_read(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(path, "wb") as file:  # noqa: PTH123 - a name of bytes
        file.write(PNG)
    source = sources.open_path(tmp_path)
    assert source.read(0) == PNG


def test_gigantic_files_are_not_even_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MOST_BYTES", len(PNG))
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


def test_the_identity_follows_names_sizes_and_times(tmp_path):
    fill(tmp_path / "a", "1.png", "2.png")
    for name in ("1.png", "2.png"):
        os.utime(tmp_path / "a" / name, ns=(10**18, 10**18))

    def identity():
        return sources.open_path(tmp_path / "a").identity

    first = identity()
    fill(tmp_path / "a", "labels.csv")
    assert identity() == first
    os.utime(tmp_path / "a" / "2.png", ns=(10**18, 10**18 + 1))
    touched = identity()
    fill(tmp_path / "a", "3.png")
    added = identity()
    (tmp_path / "a" / "1.png").rename(tmp_path / "a" / "4.png")
    renamed = identity()
    (tmp_path / "a" / "gone.png").symlink_to("nowhere")  # so that the list of the skipped is new
    assert len({first, touched, added, renamed, identity()}) == 5


def test_the_identity_of_a_zip_follows_its_contents_not_its_place(tmp_path):
    a = sources.open_path(zipped(tmp_path / "a.zip", {"x.png": PNG})).identity
    b = sources.open_path(zipped(tmp_path / "b.zip", {"x.png": PNG})).identity
    c = sources.open_path(zipped(tmp_path / "c.zip", {"x.png": PNG[:-1] + b"x"})).identity
    assert a == b
    assert a != c
