"""Listing of folders and zips: which files, in which order, and which are skipped."""

import errno
import os
import pathlib
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


def zipped(path, contents, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def make_source(folder, kind, contents):
    """Writes files to a folder or a zip and opens it."""
    if kind == "zip":
        return sources.open_path(zipped(folder / "x.zip", contents))
    for name, data in contents.items():
        fill(folder, name, data=data)
    return sources.open_path(folder)


def reasons(source):
    return dict(source.skipped)


def refuse(monkeypatch, method, name, times=10**9, number=errno.EACCES):
    """Makes a method of paths fail for one name, `times` times."""
    real, left = getattr(pathlib.Path, method), iter(range(times))

    def failing(path, *arguments, **options):
        if path.name == name and next(left, None) is not None:
            raise OSError(number, os.strerror(number))
        return real(path, *arguments, **options)

    monkeypatch.setattr(pathlib.Path, method, failing)


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
    "naïve/日本.png",
    "z.TIFF",
    "[1].png",
]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_images_of_any_suffix_are_listed_in_order(tmp_path, kind):
    source = make_source(tmp_path, kind, dict.fromkeys(reversed(NAMES), PNG))
    assert list(source.names) == sorted(NAMES)
    assert all(source.read(i) == PNG for i in range(len(NAMES)))
    assert not source.skipped


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_other_hidden_and_system_files_are_ignored(tmp_path, kind):
    contents = dict.fromkeys(["a.png", "labels.csv", "a.png~", "a.jpg_large", "none", *SYSTEM], PNG)
    source = make_source(tmp_path, kind, contents)
    assert list(source.names) == ["a.png"]
    assert not source.skipped


SYSTEM = [
    *(".hidden.png", ".git/b.png", "__MACOSX/._a.png", ".thumbnails/x/a.jpg", ".Trash-1000/a.png"),
    *("@eaDir/a.png/SYNOPHOTO_THUMB_XL.jpg", "deep/@EADIR/b.jpg", "#recycle/a.png"),
    *("@Recycle/a.png", "@Recently-Snapshot/a.png", ".@__thumb/a.png", "$RECYCLE.BIN/S-1/a.png"),
    *("System Volume Information/a.png", "lost+found/a.png", ".picasaoriginals/a.png"),
    *("SYNOPHOTO_THUMB_M.jpg", "b.jpg@SynoResource", "deep/~snapshot/a.png"),
]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_unsupported_formats_are_skipped(tmp_path, kind):
    names = ["a.heic", "b.AVIF", "c.psd", "raw.CR3", "raw.mef"]
    source = make_source(tmp_path, kind, dict.fromkeys(["a.png", *names], PNG))
    assert list(source.names) == ["a.png"]
    assert set(reasons(source)) == {*names}


def test_links_are_followed_once_and_pipes_not_read(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    fill(root, "real/a.png")
    fill(outside, "b.png")
    (root / "0_elsewhere").symlink_to(outside)
    (root / "1_again").symlink_to(root / "real")
    (root / "real" / "up").symlink_to(root)
    (root / "itself.png").symlink_to(root / "itself.png")
    (root / "nowhere.png").symlink_to(root / "gone.png")
    (root / "file.png").symlink_to(outside / "b.png")
    os.mkfifo(root / "pipe.png")
    source = sources.open_path(root)
    assert list(source.names) == ["0_elsewhere/b.png", "file.png", "real/a.png"]
    skipped = {"1_again", "real/up", "itself.png", "nowhere.png", "pipe.png"}
    assert reasons(source).keys() == skipped
    assert reasons(source)["pipe.png"] == "not a regular file"


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE])
def test_unreadable_file_is_skipped_and_changes_identity(tmp_path, number, monkeypatch):
    failing = "b.png"
    fill(tmp_path, "a.png", failing)
    complete = sources.open_path(tmp_path)
    with monkeypatch.context() as patch:
        refuse(patch, "open", failing, number=number)
        source = sources.open_path(tmp_path)
        assert list(source.names) == ["a.png"]
        assert reasons(source) == {failing: f"cannot be read: {os.strerror(number)}"}
        with pytest.raises(decoding.Unreadable, match=os.strerror(number)):
            complete.read(list(complete.names).index(failing))
    assert source.identity != complete.identity
    assert sources.open_path(tmp_path).identity == complete.identity


def test_file_or_zip_changed_after_listing_is_refused(tmp_path):
    fill(tmp_path, "a.png", "b.png")
    source = sources.open_path(tmp_path)
    (tmp_path / "a.png").unlink()
    (tmp_path / "b.png").write_bytes(encode(picture(1), "png"))
    path = zipped(tmp_path / "x.zip", {"a.png": PNG})
    archive = sources.open_path(path)
    assert archive.read(0) == PNG
    zipped(tmp_path / "y.zip", {"a.png": PNG}).replace(path)
    for changed, position in ((source, 0), (source, 1), (archive, 0)):
        with pytest.raises(decoding.Unreadable):
            changed.read(position)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), OSError("bad stream")])
def test_unreadable_zip_differs_from_damaged_zip(tmp_path, error, monkeypatch):
    source = sources.open_path(zipped(tmp_path / "x.zip", {"a.png": PNG}))

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(zipfile.ZipFile, "open", fail)
    with pytest.raises(decoding.BadImage) as caught:
        source.read(0)
    # bz2 raises an OSError without errno for damaged data.
    assert isinstance(caught.value, decoding.Unreadable) == (error.errno is not None)


def test_too_large_files_are_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_BYTES", len(PNG))
    fill(tmp_path, "a.png")
    fill(tmp_path, "b.png", data=PNG + b"x")
    assert reasons(sources.open_path(tmp_path)) == {"b.png": f"too large: {len(PNG) + 1} bytes"}
    path = zipped(tmp_path / "x.zip", {"a.png": PNG, "b.png": PNG + b"x"})
    assert reasons(sources.open_path(path)) == {"b.png": f"too large: {len(PNG) + 1} bytes"}


def test_encrypted_entry_is_refused(tmp_path):
    path = zipped(tmp_path / "x.zip", {"a.png": PNG, "b.png": PNG})
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")  # the central directory's last entry: flags at offset 8
    data[at + 8] |= 1
    path.write_bytes(data)
    source = sources.open_path(path)
    assert source.read(0) == PNG
    with pytest.raises(decoding.BadImage, match="encrypted"):
        source.read(1)


def test_zip_checksum_is_verified(tmp_path):
    bmp = encode(picture(), "bmp")  # which has none of its own
    path = zipped(tmp_path / "x.zip", {"a.bmp": bmp, "b.bmp": bmp})
    data = bytearray(path.read_bytes())
    data[data.index(bmp) + 500] ^= 1
    path.write_bytes(data)
    source = sources.open_path(path)
    with pytest.raises(decoding.BadImage, match="CRC-32"):
        source.read(0)
    assert source.read(1) == bmp


@pytest.mark.parametrize("contents", [{}, {"a.txt": b"x", "c": b"x"}, {"a.heic": b"x"}])
def test_source_without_images_is_refused(tmp_path, contents):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    for path in (folder, zipped(tmp_path / "x.zip", contents)):
        with pytest.raises(UserError, match=re.escape(str(path))) as caught:
            sources.open_path(path)
        assert ("a.heic" in str(caught.value)) == ("a.heic" in contents)


def test_missing_or_damaged_source_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"data\.path is .*gone"):
        sources.open_path(tmp_path / "gone")
    path = zipped(tmp_path / "x.zip", {"a.png": PNG})
    complete = path.read_bytes()
    for end in (0, 10, 200, -1):
        path.write_bytes(complete[:end])
        with pytest.raises(UserError, match=r"x\.zip .*\(.+\)"):
            sources.open_path(path)


def test_identity_depends_on_names_and_contents_only(tmp_path):
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
    (tmp_path / "a" / "gone.png").symlink_to("nowhere")  # so that another file is skipped
    assert len({first, changed, added, renamed, identity()}) == 5
