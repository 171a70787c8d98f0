"""Media columns and grounding: their forms, and their tags."""

import base64

import pytest
from normalizing import kept

from swiftcore.data import RejectedRow, RowNormalizer, normalize_rows

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def _row(text: str = "<image>what", **columns: object) -> dict:
    return {"query": text, "response": "r", **columns}


@pytest.mark.parametrize(
    ("given", "images"),
    [
        ("a.jpg", [{"bytes": None, "path": "a.jpg"}]),
        (["a.jpg", "b.jpg"], [{"bytes": None, "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}]),
        ('["a.jpg"]', [{"bytes": None, "path": "a.jpg"}]),
        ("['a.jpg']", [{"bytes": None, "path": "a.jpg"}]),
        ({"path": "a.jpg", "bytes": None}, [{"bytes": None, "path": "a.jpg"}]),
        ({"path": None, "bytes": PNG}, [{"bytes": base64.b64encode(PNG).decode(), "path": None}]),
    ],
)
def test_images_have_one_form(given, images):
    assert kept(_row(images=given))["images"] == images
    assert kept(kept(_row(images=given)))["images"] == images


def test_an_image_of_pillow_is_written_out():
    image = pytest.importorskip("PIL.Image").new("RGB", (1, 1))
    (found,) = kept(_row(images=[image]))["images"]
    assert base64.b64decode(found["bytes"]).startswith(b"\x89PNG")


def test_samples_have_media_of_their_own():
    row = {"messages": [{"role": "user", "content": "<image>"}], "images": ["a.jpg"]}
    row["positive_messages"] = [[{"role": "user", "content": "<image>"}]]
    row["positive_images"] = [["b.jpg"]]
    assert kept(row)["positive_images"] == [["b.jpg"]]
    part = {"role": "user", "content": [{"type": "image", "image": "c.jpg"}]}
    row = {"messages": [part], "rejected_messages": [part, {"role": "assistant", "content": "x"}]}
    assert kept(row)["rejected_images"] == [{"bytes": None, "path": "c.jpg"}]


def test_missing_tags_are_put_before_the_first_user_message_when_asked_for():
    row = _row("what", images=["a.jpg", "b.jpg"], audio="c.wav", system="S")
    messages = RowNormalizer(add_media_tags=True).standard_row(row)["messages"]
    assert messages[1]["content"] == "<audio><image><image>what"
    assert kept(row)["messages"][1]["content"] == "what"
    document = {"text": "d", "image": "a.jpg"}
    with pytest.raises(RejectedRow, match="no message is the user's"):
        RowNormalizer(add_media_tags=True).standard_row(document)


def test_surplus_tags_are_noted_and_tags_without_media_are_text():
    normalizer = RowNormalizer()
    normalizer.standard_row(_row("<image><image>", images=["a.jpg"]))
    normalizer.standard_row(_row("the <video> element of HTML"))
    assert list(normalizer.notes) == [
        "more <image> tags than images; the last ones stay plain text"
    ]


def test_boxes_are_counted_against_their_tags():
    objects = {"ref": ["cat"], "bbox": [[3, 2, 1, 4]], "bbox_type": "real", "image_id": [0]}
    normalizer = RowNormalizer()
    row = normalizer.standard_row(
        _row("<image>find <ref-object>: <bbox>", images=["a.jpg"], objects=objects)
    )
    assert row["objects"] == objects | {"bbox": [[1, 2, 3, 4]]}
    assert not normalizer.notes
    normalizer.standard_row(_row(images=["a.jpg"], objects=str(objects)))
    assert len(normalizer.notes) == 2


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"images": [3]}, "images holds a number"),
        ({"images": [None]}, "images holds null"),
        ({"videos": [{}]}, "videos holds an object"),
        ({"objects": {"bbox": [[1, 2]], "bbox_type": "pixels"}}, "bbox_type"),
        ({"objects": {"bbox": [[1, 2]], "image_id": [1]}}, "names an image beyond"),
        ({"objects": {"bbox": [[1, float("nan")]]}}, "out of range"),
        ({"objects": {"bbox": [[1, "2"]]}}, "no number"),
        ({"objects": {"ref": ["a"]}}, "no list bbox"),
    ],
)
def test_media_without_meaning_are_quarantined(columns, reason):
    rows, quarantine = normalize_rows([_row(**columns)])
    assert not rows
    assert reason in quarantine[0].reason
