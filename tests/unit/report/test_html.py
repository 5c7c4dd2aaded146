"""The report: complete, self-contained, and safe whatever the user wrote."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from dreambooth.report.chart import loss_chart, moving_mean
from dreambooth.report.html import MAX_A_PROMPT, render_report
from dreambooth.report.words import bytes_in_words, duration, flattened

EVIL = '<script>alert("x")</script> & "quotes" \'too\''


class Page(HTMLParser):
    """Collects what a browser would act on."""

    VOID = frozenset({"meta", "img", "line", "polyline"})

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def picture(file: Path, colour: str, seed: int | None = None) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    info = PngImagePlugin.PngInfo()
    if seed is not None:
        info.add_itxt("dreambooth.seed", str(seed))
    Image.new("RGB", (16, 16), colour).save(file, pnginfo=info)
    return file


@pytest.fixture
def job(tmp_path: Path) -> Path:
    folder = tmp_path / "jobs" / "rex"
    for index in range(2):
        picture(folder / "images" / "snow" / f"000{index}.png", "lime", seed=700 + index)
        picture(tmp_path / "cache" / "class-images" / "k" / f"000{index}.png", "blue", 700 + index)
    picture(folder / "photos" / "00.png", "red")
    return folder


def a_result(**changes: Any) -> dict[str, Any]:
    result: dict[str, Any] = {
        "name": "rex",
        "summary": "The pictures look 78 % of the way there.",
        "resolved": {"token": "sks", "training": {"steps": 240, "textEncoder": True}},
        "stages": [
            {"name": "photos", "seconds": 0.3, "gpuSeconds": 0.0, "cached": True},
            {"name": "train", "seconds": 185.2, "gpuSeconds": 185.2, "cached": False},
        ],
        "photos": {"accepted": [{"file": "00.png", "digest": "d"}], "report": {"warnings": []}},
        "classImages": {"folder": "cache/class-images/k", "count": 2, "digest": "c1a55"},
        "training": {"losses": [1.0, 0.5, 0.2], "keptStep": 3, "trainedParameters": 16_000_000},
        "images": [
            {
                "prompt": "a sks dog in the snow",
                "files": ["images/snow/0000.png", "images/snow/0001.png"],
            }
        ],
        "baseImages": [
            {
                "prompt": "a sks dog in the snow",
                "files": ["cache/class-images/k/0000.png", "cache/class-images/k/0001.png"],
            }
        ],
        "quality": {
            "encoder": "efficientnet-lite0",
            "subjectFidelity": 0.8,
            "baseFidelity": 0.56,
            "gapClosed": 0.78,
            "diversity": 0.976,
            "notes": ["efficientnet-lite0 does not understand text."],
        },
        "peakMemoryBytes": 3_200_000_000,
        "outputs": {"folder": "jobs/rex", "model": "model", "modelDigest": "d1935t"},
        "versions": {"torch": "2.15.0"},
    }
    return result | changes


def rendered(job: Path, **changes: Any) -> Page:
    return Page(render_report(a_result(**changes), job, job.parents[1]))


def test_the_report_says_everything_a_reader_needs(job: Path) -> None:
    text = rendered(job).text
    for expected in (
        "rex",
        "78 % of the way",
        "a sks dog in the snow",
        "seed 700",
        "Likeness gained",
        "78\u202f%",
        "0.80",
        "efficientnet-lite0 does not understand text.",
        "kept: step 3",
        "3 min 5 s",
        "done by an earlier run",
        "3.2 GB",
        "training.steps",
        "240",
        "d1935t",
        "2.15.0",
    ):
        assert expected in text


def test_every_tag_that_is_opened_is_closed(job: Path) -> None:
    assert rendered(job).open == []


def test_base_and_tuned_pictures_stand_side_by_side_with_their_prompt(job: Path) -> None:
    described = [image["alt"] for image in rendered(job).all("img")]
    assert described == [
        *["Base model: a sks dog in the snow"] * 2,
        *["Fine-tuned: a sks dog in the snow"] * 2,
        "Photo 1",
    ]


def test_the_file_needs_nothing_else(job: Path) -> None:
    page = rendered(job)
    sources = [image["src"] or "" for image in page.all("img")]
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    loaded = {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert loaded.isdisjoint(tag for tag, _ in page.tags)
    document = render_report(a_result(), job, job.parents[1])
    assert not re.search(r"https?://|url\(|@import", document)
    [policy] = [m["content"] for m in page.all("meta") if m.get("http-equiv")]
    assert policy is not None and "default-src 'none'" in policy


def test_the_page_is_readable_on_a_phone_and_in_the_dark(job: Path) -> None:
    page = rendered(job)
    [viewport] = [m["content"] for m in page.all("meta") if m.get("name") == "viewport"]
    assert viewport is not None and "width=device-width" in viewport
    assert "prefers-color-scheme:dark" in render_report(a_result(), job, job.parents[1])
    assert page.all("html")[0]["lang"] == "en"


def test_what_users_wrote_is_shown_and_never_run(job: Path) -> None:
    page = rendered(
        job,
        name=EVIL,
        summary=EVIL,
        resolved={EVIL: EVIL},
        images=[{"prompt": EVIL, "files": ["images/snow/0000.png"]}],
        photos={"accepted": [{"file": "00.png"}], "report": {"warnings": [EVIL]}},
        outputs={"folder": EVIL},
        quality={"encoder": EVIL, "gapClosed": 0.5, "notes": [EVIL]},
        stages=[{"name": EVIL, "seconds": 1.0}],
        versions={EVIL: EVIL},
    )
    assert page.all("script") == []
    assert page.open == []
    assert page.text.count(EVIL) >= 11
    assert any(image["alt"] == f"Fine-tuned: {EVIL}" for image in page.all("img"))


def test_a_seed_that_a_file_claims_is_escaped_too(job: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("dreambooth.seed", EVIL)
    file = job / "images" / "snow" / "0000.png"
    Image.new("RGB", (8, 8)).save(file, pnginfo=info)
    page = rendered(job)
    assert page.all("script") == []
    assert f"seed {EVIL}" in page.text


def test_warnings_about_photos_are_shown(job: Path) -> None:
    photos = {
        "accepted": [{"file": "00.png"}],
        "report": {"warnings": ["IMG_1.jpg is blurred", {"file": "b.jpg", "message": "is small"}]},
    }
    text = rendered(job, photos=photos).text
    assert "IMG_1.jpg is blurred" in text
    assert "b.jpg: is small" in text
    assert "needs attention" not in text
    assert "needs attention" in rendered(job).text


def test_a_picture_that_was_deleted_is_left_out(job: Path) -> None:
    (job / "images" / "snow" / "0000.png").unlink()
    (job / "images" / "snow" / "0001.png").write_bytes(b"no picture")
    described = [image["alt"] for image in rendered(job).all("img")]
    assert not any(text and text.startswith("Fine-tuned") for text in described)


def test_a_picture_that_is_lost_keeps_its_place_beside_the_base_models(job: Path) -> None:
    (job / "images" / "snow" / "0000.png").unlink()
    figures = rendered(job).text.rpartition("Fine-tuned")[2]
    assert figures.index("left out") < figures.index("seed 701")


def test_a_result_with_little_in_it_still_gives_a_page(tmp_path: Path) -> None:
    page = Page(render_report({"name": "rex"}, tmp_path, tmp_path))
    assert "rex" in page.text
    assert page.open == []


def test_many_pictures_are_counted_instead_of_shown(job: Path) -> None:
    files = ["images/snow/0000.png"] * (MAX_A_PROMPT + 5)
    page = rendered(job, images=[{"prompt": "p", "files": files}], baseImages=[])
    assert len([i for i in page.all("img") if i["alt"] == "Fine-tuned: p"]) == MAX_A_PROMPT
    assert "and 5 more in the images folder" in page.text


def test_a_picture_that_is_left_out_keeps_its_place_and_those_that_were_flagged_are_counted(
    job: Path,
) -> None:
    [drawn], [base] = a_result()["images"], a_result()["baseImages"]
    page = rendered(
        job,
        images=[drawn | {"refused": {"flagged": 3}}],
        baseImages=[base | {"files": [None, base["files"][1]]}],
        classImages={"folder": "f", "count": 2, "refused": {"black": 4, "flagged": 5}},
    )
    text = page.text
    assert text.index("left out") < text.index("seed 701") < text.index("seed 700")
    assert len([i for i in page.all("img") if i["alt"] == "Base model: a sks dog in the snow"]) == 1
    assert "3 pictures were flagged by the model's safety checker" in text
    assert "refused.flagged" in text
    assert "left out" not in rendered(job).text and "flagged" not in rendered(job).text


def test_figures_without_a_value_have_no_row(job: Path) -> None:
    assert "Following the prompt" not in rendered(job).text
    with_text = rendered(job, quality={"encoder": "clip-vit-b32", "promptFidelity": 0.31})
    assert "Following the prompt" in with_text.text


def test_the_curve_stays_in_its_frame_whatever_the_losses() -> None:
    losses = [0.5, 100.0, *[0.4] * 50, float("nan"), float("inf"), 0.1]
    chart = loss_chart(losses, kept_step=10)
    numbers = [float(n) for pair in re.findall(r'points="([^"]+)"', chart) for n in
               re.findall(r"[\d.]+", pair)]  # fmt: skip
    assert max(numbers) <= 720
    assert "nan" not in chart and "inf" not in chart
    assert "kept: step 10" in chart


def test_no_curve_without_losses() -> None:
    assert loss_chart([], None) == ""
    assert loss_chart([0.1], 1) == ""


def test_moving_mean_looks_back_over_the_window() -> None:
    assert moving_mean([4.0, 2.0, 6.0, 0.0], 2) == [4.0, 3.0, 4.0, 3.0]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (185, "3 min 5 s"),
        (3600, "1 h"),
        (7800, "2 h 10 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (812, "812 B"), (36_400_000, "36.4 MB"), (4.27e9, "4.27 GB"), (2e12, "2 TB")],
)
def test_sizes_have_three_digits(count: float, words: str) -> None:
    assert bytes_in_words(count) == words


def test_nested_settings_get_dotted_names_and_nothing_empty() -> None:
    values = {"a": {"b": 1, "c": None}, "d": True, "e": ["x", "y"]}
    assert flattened(values) == [("a.b", "1"), ("d", "yes"), ("e", "x, y")]
