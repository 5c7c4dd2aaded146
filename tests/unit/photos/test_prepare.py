"""Photos are prepared whole or not at all, the same way every time, and judged one by one."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFilter

from dreambooth.errors import InfrastructureError, UserError
from dreambooth.photos import PhotoReport, prepare
from dreambooth.workspace.digest import file_digest, tree_digest
from tests.unit.photos.pictures import a_photo, picture_bytes, save_photos


def put(folder: Path, name: str, image: Image.Image, **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    image.save(folder / name, **options)
    return folder / name


def warnings_of(report: PhotoReport, name: str) -> str:
    return "; ".join(text for text in report.warnings if text.startswith(name))


def test_photos_become_numbered_png_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    files = save_photos(tmp_path / "in", 4)
    report = prepare(list(reversed(files)), tmp_path / "out")
    assert [photo.file for photo in report.photos] == ["00.png", "01.png", "02.png", "03.png"]
    assert [photo.name for photo in report.photos] == [file.name for file in files]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        photo.file for photo in report.photos
    ]
    for file, photo in zip(files, report.photos, strict=True):
        with Image.open(tmp_path / "out" / photo.file) as made, Image.open(file) as came:
            assert made.tobytes() == came.tobytes()
        assert photo.sha256 == file_digest(file)


def test_the_same_photos_give_the_same_bytes_whatever_their_order(tmp_path: Path) -> None:
    files = save_photos(tmp_path / "in", 4)
    first = prepare(files, tmp_path / "first")
    second = prepare([files[2], files[0], files[3], files[1]], tmp_path / "second")
    assert first == second
    assert tree_digest(tmp_path / "first") == tree_digest(tmp_path / "second")


def test_where_and_when_a_photo_was_taken_is_not_kept(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x9003] = "SecretCam", "2024:05:01 10:00:00"
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 0.0)}
    file = put(tmp_path / "in", "p.jpg", a_photo(), exif=exif, comment=b"at home")
    assert b"SecretCam" in file.read_bytes() and b"at home" in file.read_bytes()
    prepare([file], tmp_path / "out")
    with Image.open(tmp_path / "out" / "00.png") as made:
        made.load()
        assert made.info == {}
        assert not made.getexif()
    assert b"SecretCam" not in (tmp_path / "out" / "00.png").read_bytes()


def test_a_photo_that_may_be_a_poor_choice_is_used_with_a_warning(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    files = [
        *save_photos(folder, 2),
        put(folder, "again.jpg", a_photo(0), quality=60),
        put(folder, "blurred.png", a_photo(7).filter(ImageFilter.GaussianBlur(40))),
        put(folder, "little.png", a_photo(8, (100, 90))),
        put(folder, "wide.png", a_photo(9, (700, 140))),
        put(folder, "tall.png", a_photo(10, (140, 700))),
        put(folder, "moves.gif", a_photo(11), save_all=True, append_images=[a_photo(12)]),
    ]
    report = prepare(files, tmp_path / "out")
    assert len(report.photos) == len(files)
    assert "looks almost like again.jpg" in warnings_of(report, "photo-0.png")
    assert "looks blurred" in warnings_of(report, "blurred.png")
    assert "is small, 100 × 90 pixels" in warnings_of(report, "little.png")
    assert "very wide" in warnings_of(report, "wide.png")
    assert "very tall" in warnings_of(report, "tall.png")
    assert "the first of 2 frames" in warnings_of(report, "moves.gif")
    assert warnings_of(report, "photo-1.png") == ""


@pytest.mark.parametrize(("count", "words"), [(1, "only one photo"), (2, "only 2 photos")])
def test_few_photos_are_used_with_advice_on_how_many_are_good(
    tmp_path: Path, count: int, words: str
) -> None:
    report = prepare(save_photos(tmp_path / "in", count), tmp_path / "out")
    assert words in report.warnings[-1] and "3 to 10" in report.warnings[-1]
    assert prepare(save_photos(tmp_path / "in", 3), tmp_path / "out").warnings == ()


def test_a_file_that_is_no_picture_is_left_out_and_said_to_be(tmp_path: Path) -> None:
    files = save_photos(tmp_path / "in", 3)
    notes = tmp_path / "in" / "notes.txt"
    notes.write_text("taken in May")
    report = prepare([notes, *files], tmp_path / "out")
    assert report.left_out == ("notes.txt",)
    assert "notes.txt is no picture and was left out" in report.warnings
    assert [photo.file for photo in report.photos] == ["00.png", "01.png", "02.png"]


def test_all_photos_that_cannot_be_used_are_named_at_once(tmp_path: Path) -> None:
    files = save_photos(tmp_path / "in", 3)
    files[1].write_bytes(files[1].read_bytes()[:-200])
    flat = put(tmp_path / "in", "black.png", Image.new("RGB", (99, 99)))
    with pytest.raises(UserError) as caught:
        prepare([*files, flat], tmp_path / "out")
    assert "2 photos cannot be used" in caught.value.message
    assert "black.png shows one even colour" in caught.value.message
    assert "photo-1.png is damaged" in caught.value.message
    assert caught.value.remedy == "Replace them, or take them out."
    assert not (tmp_path / "out").exists()


def test_nothing_but_files_that_are_no_pictures_is_no_photos(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("text")
    with pytest.raises(UserError, match=r"only files that are no pictures: a\.txt, b\.txt"):
        prepare(sorted(tmp_path.iterdir()), tmp_path / "out")
    with pytest.raises(UserError, match="there are no photos"):
        prepare([], tmp_path / "out")


def test_more_photos_than_anybody_chooses_by_hand_are_refused(tmp_path: Path) -> None:
    content = picture_bytes(a_photo(size=(64, 64)))
    files = [tmp_path / f"{number:03d}.png" for number in range(101)]
    for file in files:
        file.write_bytes(content)
    with pytest.raises(UserError, match="101 files") as caught:
        prepare(files, tmp_path / "out")
    assert "best 3 to 10" in str(caught.value.remedy)
    assert not (tmp_path / "out").exists()


def test_the_report_says_it_all_in_json(tmp_path: Path) -> None:
    file = put(tmp_path / "in", "p.jpg", a_photo(size=(3000, 1500)), quality=90)
    report = prepare([file], tmp_path / "out").to_json()
    assert report["count"] == 1 and report["leftOut"] == []
    photo = report["photos"][0]
    assert (photo["originalWidth"], photo["originalHeight"]) == (3000, 1500)
    assert (photo["width"], photo["height"]) == (2048, 1024)
    assert photo["format"] == "JPEG"
    assert photo["sharpness"] > 20
    assert set(photo["warnings"]) <= {text.removeprefix("p.jpg ") for text in report["warnings"]}


def test_photos_prepared_before_are_replaced_by_the_new_ones_alone(tmp_path: Path) -> None:
    files = save_photos(tmp_path / "in", 3)
    prepare(files, tmp_path / "out")
    prepare(files[:1], tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["00.png"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_refuses_leaves_the_photos_of_before_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    files = save_photos(tmp_path / "in", 3)
    prepare(files, tmp_path / "out")
    before = tree_digest(tmp_path / "out")
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.name == "01.png":
            raise OSError(number, os.strerror(number))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InfrastructureError, match="cannot write") as caught:
        prepare(files, tmp_path / "out")
    assert caught.value.field == str(tmp_path / "out" / "01.png")
    assert caught.value.remedy
    assert tree_digest(tmp_path / "out") == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in", "out"]


def test_an_interruption_leaves_nothing_half_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = save_photos(tmp_path / "in", 3)

    def interrupt(source: object, target: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(files, tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]
    assert len(prepare(files, tmp_path / "out").photos) == 3
    shutil.rmtree(tmp_path / "out")
