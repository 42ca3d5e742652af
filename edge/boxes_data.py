"""Pictures with labelled boxes on disk, without torch: YOLO txt, COCO JSON and Pascal VOC XML.

Boxes are of the picture as `read_picture` shows it, EXIF orientation applied, which is what labelling tools show.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import msgspec
import numpy as np

from edge.card import Label
from edge.class_names import yaml_names
from edge.datasets import PICTURES, label_index, name_key, picture_files
from edge.errors import DataError
from edge.pictures import decode_picture, upright_size
from edge.types import Bools, Float32, Int64

Split = Literal["train", "val"]
VOC_SIDES = ("xmin", "ymin", "xmax", "ymax")
NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "names", "names.txt", "classes.txt", "obj.names", "labels.txt")
VOC_FOLDERS = ("Annotations", "annotations")
PICTURE_FOLDERS = ("", "images", "JPEGImages")
SLACK = 0.01
"""By how much a YOLO box may leave the picture before it is an error: writers round."""


@dataclass(frozen=True, slots=True, eq=False)
class BoxSample:
    """One picture and its n objects: `boxes_xyxy` float32 [n, 4] in its pixels, `class_ids` int64 [n], label indices.

    `ignored` [n] marks crowds and difficult objects: no error to miss and no error to find, nothing to train on.
    """

    path: Path
    boxes_xyxy: Float32
    class_ids: Int64
    ignored: Bools = field(default_factory=lambda: np.zeros(0, np.bool_))

    def __post_init__(self) -> None:
        count = len(self.class_ids)
        if not len(self.ignored):
            object.__setattr__(self, "ignored", np.zeros(count, np.bool_))
        if self.boxes_xyxy.shape != (count, 4) or self.class_ids.shape != self.ignored.shape:
            raise ValueError(
                f"{self.path}: expected boxes ({count}, 4) and as many classes and ignored, got {self.boxes_xyxy.shape}, "
                f"{self.class_ids.shape}, {self.ignored.shape}"
            )


@dataclass(frozen=True, slots=True)
class _Object:
    class_id: int
    box_xyxy: tuple[float, float, float, float]
    ignored: bool = False


def labelled_boxes(folder: Path, labels: Sequence[Label], split: Split | None = None) -> list[BoxSample]:
    """The pictures of a folder with their boxes; the layout, COCO, VOC or YOLO, is told by what lies in it.

    `split` takes only that part where the layout names parts. COCO, VOC and YOLO with a names file or data.yaml match
    the labels by name, case aside; YOLO without takes its class numbers for label indices. Pictures without a label
    are backgrounds. Raises DataError naming the file, and the line where it has lines, of what cannot be.
    """
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: no such folder; give a folder of pictures with boxes in YOLO, COCO or VOC files")
    if split is not None and os.path.isdir(folder / split) and not os.path.isdir(folder / "images"):
        folder = folder / split
    for layout in (_coco, _voc, _yolo):
        samples = layout(folder, labels, split)
        if samples:
            if not any(len(sample.boxes_xyxy) for sample in samples):
                raise DataError(f"{folder}: none of its {len(samples)} pictures has a labelled box")
            return samples
    raise DataError(
        f"{folder}: no labelled boxes found; expected images/ beside labels/*.txt (YOLO), annotations/*.json (COCO) or "
        "annotations/*.xml (VOC)"
    )


def _sample(path: Path, objects: Iterable[_Object], size_wh: tuple[int, int] | None = None) -> BoxSample:
    """A sample of objects, clipped to the picture where its size is known; those without an area are left out."""
    found = list(objects)
    boxes = np.array([item.box_xyxy for item in found], np.float64).reshape(-1, 4)
    boxes = np.clip(boxes, 0, None if size_wh is None else np.array(size_wh * 2))
    kept = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(axis=1)
    class_ids = np.array([item.class_id for item in found], np.int64)
    ignored = np.array([item.ignored for item in found], np.bool_)
    return BoxSample(path, boxes[kept].astype(np.float32), class_ids[kept], ignored[kept])


# YOLO: a line an object, class and centre x, centre y, width, height in parts of the picture, or class and a polygon


def _yolo(folder: Path, labels: Sequence[Label], split: Split | None) -> list[BoxSample]:
    images = folder / "images" if os.path.isdir(folder / "images") else folder
    if split is not None and os.path.isdir(images / split):
        images = images / split
    pairs = [(path, _yolo_label(path, folder)) for path in picture_files(images)]
    if not any(os.path.isfile(label) for _, label in pairs):
        return []
    class_ids = _yolo_classes(folder, labels)
    return [_yolo_sample(path, label, class_ids) for path, label in pairs]


def _yolo_label(picture: Path, folder: Path) -> Path:
    """images/PART/x.jpg → labels/PART/x.txt, or the text file beside the picture."""
    parts = list(picture.relative_to(folder).parts)
    if parts[0] == "images":
        parts[0] = "labels"
    return (folder / Path(*parts)).with_suffix(".txt")


def _yolo_classes(folder: Path, labels: Sequence[Label]) -> Callable[[int], int | str]:
    """A function from a class number of this dataset to the label's index, or to what is wrong with it."""
    names_file = next(
        (place / name for place in (folder, folder.parent) for name in NAME_FILES if (place / name).is_file()), None
    )
    if names_file is None:
        return lambda number: number if number < len(labels) else f"class {number} of {len(labels)} labels, and no names file"
    names = _names(names_file)
    index = label_index(labels)

    def find(number: int) -> int | str:
        if number not in names:
            return f"class {number}, which {names_file} does not name"
        return index.get(name_key(names[number]), f"class {names[number]!r} ({names_file}), which is none of the labels")

    return find


def _names(path: Path) -> dict[int, str]:
    text = _text(path)
    if path.suffix in (".yaml", ".yml"):
        return yaml_names(text, str(path))
    return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))


def _yolo_sample(path: Path, label: Path, class_ids: Callable[[int], int | str]) -> BoxSample:
    lines = [line.split() for line in _text(label).splitlines()] if os.path.isfile(label) else []
    size_wh = _size(path) if any(lines) else None
    objects = []
    for number, words in enumerate(lines, start=1):
        if not words:
            continue
        found = _yolo_object(words, class_ids)
        if isinstance(found, str):
            raise DataError(f"{label}, line {number}: {found}; correct or remove it")
        objects.append(found)
    if size_wh is None:  # unreadable, as whoever reads it will say
        return _sample(path, [])
    scale = size_wh * 2
    scaled = [
        _Object(item.class_id, tuple(v * s for v, s in zip(item.box_xyxy, scale, strict=True)))  # type: ignore[arg-type]
        for item in objects
    ]
    return _sample(path, scaled, size_wh)


def _yolo_object(words: list[str], class_ids: Callable[[int], int | str]) -> _Object | str:
    """An object in parts of the picture, or what is wrong with its line."""
    if len(words) != 5 and (len(words) < 7 or len(words) % 2 == 0):
        return f"{len(words)} values, expected class x y width height"
    try:
        number, values = float(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        return f"{' '.join(words)[:60]!r} are not numbers"
    if number < 0 or not number.is_integer():
        return f"class {words[0][:20]}, expected a whole number from 0"
    if not all(math.isfinite(value) for value in values) or min(values) < -SLACK or max(values) > 1 + SLACK:
        return f"{' '.join(words[1:5])[:60]} are not all in parts of the picture, from 0 to 1"
    class_id = class_ids(int(number))
    if isinstance(class_id, str):
        return class_id
    if len(words) > 5:  # a polygon: its bounding box
        return _Object(class_id, (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])))
    x, y, width, height = values
    return _Object(class_id, (x - width / 2, y - height / 2, x + width / 2, y + height / 2))


def _size(path: Path) -> tuple[int, int] | None:
    """Width and height of the picture as it is shown; None when it cannot be read."""
    try:
        raw = path.read_bytes()
        size_wh = upright_size(raw)
        if size_wh is None:
            height, width = decode_picture(raw, str(path)).shape[:2]
            size_wh = (width, height)
    except (OSError, DataError):
        return None
    return size_wh


# COCO: one JSON of images, annotations and categories (cocodataset.org/#format-data)


class _CocoImage(msgspec.Struct):
    id: int
    file_name: str


class _CocoAnnotation(msgspec.Struct):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    id: int | str = "without id"
    iscrowd: int = 0


class _CocoCategory(msgspec.Struct):
    id: int
    name: str


class _Coco(msgspec.Struct):
    images: list[_CocoImage]
    annotations: list[_CocoAnnotation]
    categories: list[_CocoCategory]


def _coco(folder: Path, labels: Sequence[Label], split: Split | None) -> list[BoxSample]:
    files = [path for place in (folder, folder / "annotations") for path in sorted(place.glob("*.json"))]
    boxed = [path for path in files if not {"captions", "person_keypoints", "panoptic"} & {path.stem.rpartition("_")[0]}]
    named = [path for path in boxed if split is not None and split in path.stem]
    return [sample for path in named or boxed for sample in _coco_file(path, folder, label_index(labels))]


def _coco_file(path: Path, folder: Path, index: dict[str, int]) -> list[BoxSample]:
    try:
        data = msgspec.json.decode(_text(path), type=_Coco)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DataError(f"{path}: not COCO's JSON of images, annotations and categories: {error}") from None
    names = {category.id: category.name for category in data.categories}
    objects: dict[int, list[_Object]] = {image.id: [] for image in data.images}
    for item in data.annotations:
        where = f"{path}: annotation {item.id}"
        x, y, width, height = item.bbox
        if item.image_id not in objects:
            raise DataError(f"{where}: image_id {item.image_id} is none of its images; correct or remove it")
        if not all(math.isfinite(value) for value in item.bbox) or width < 0 or height < 0:
            raise DataError(f"{where}: bbox {list(item.bbox)}, expected x, y, width, height; correct or remove it")
        class_id = index.get(name_key(names.get(item.category_id, "")))
        if class_id is None:
            name = names.get(item.category_id, f"number {item.category_id}")
            raise DataError(f"{where}: category {name!r} is none of the labels; correct it or the labels")
        objects[item.image_id].append(_Object(class_id, (x, y, x + width, y + height), item.iscrowd != 0))
    places = [folder / place for place in PICTURE_FOLDERS] + [folder / path.stem.rpartition("_")[2]]
    places += [folder / "images" / path.stem.rpartition("_")[2], path.parent]
    first = data.images[0].file_name if data.images else ""
    place = next((place for place in places if os.path.isfile(place / first)), places[0])
    return [_sample(place / image.file_name, objects[image.id]) for image in data.images]


# Pascal VOC: an XML a picture, pixels counted from 1 and the last one included (Everingham et al., 2010)


def _voc(folder: Path, labels: Sequence[Label], split: Split | None) -> list[BoxSample]:
    place = next((folder / name for name in VOC_FOLDERS if any((folder / name).glob("*.xml"))), folder)
    files = sorted(place.glob("*.xml"))
    chosen = folder / "ImageSets" / "Main" / f"{split}.txt"
    if files and os.path.isfile(chosen):
        stems = {line.split()[0] for line in _text(chosen).splitlines() if line.strip()}
        files = [path for path in files if path.stem in stems]
    pictures = {path.stem: path for name in PICTURE_FOLDERS if files for path in _pictures_in(folder / name)}
    return [_voc_file(path, pictures, folder, label_index(labels)) for path in files]


def _pictures_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*")) if path.suffix.lower() in PICTURES]


def _voc_file(path: Path, pictures: dict[str, Path], folder: Path, index: dict[str, int]) -> BoxSample:
    root = _parse_xml(path)
    picture = pictures.get(path.stem) or pictures.get(Path(root.findtext("filename") or "").stem)
    objects = []
    for number, item in enumerate(root.iter("object"), start=1):
        where = f"{path}: object {number}"
        name = (item.findtext("name") or "").strip()
        if name_key(name) not in index:
            raise DataError(f"{where}: {name!r} is none of the labels; correct it or the labels")
        try:
            left, top, right, bottom = (
                float(item.findtext(f"bndbox/{side}") or "") for side in ("xmin", "ymin", "xmax", "ymax")
            )
        except ValueError:
            raise DataError(f"{where}: its bndbox lacks a number for xmin, ymin, xmax or ymax; correct or remove it") from None
        if not (math.isfinite(left + top + right + bottom) and left <= right and top <= bottom):
            raise DataError(f"{where}: bndbox {left:g} {top:g} {right:g} {bottom:g} has its corners swapped; correct it")
        difficult = (item.findtext("difficult") or "0").strip() == "1"
        objects.append(_Object(index[name_key(name)], (left - 1, top - 1, right, bottom), difficult))
    return _sample(picture or folder / (root.findtext("filename") or path.with_suffix(".jpg").name).strip(), objects)


def _parse_xml(path: Path) -> Element:
    """The root of an XML file without a document type, whose entities could grow without bound."""
    builder = TreeBuilder()
    parser = expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise DataError(f"{path}: has a document type declaration, which a VOC annotation does not need; remove it")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(_raw(path), True)
    except expat.ExpatError as error:
        raise DataError(
            f"{path}, line {error.lineno}: not XML: {expat.ErrorString(error.code)}; correct or remove it"
        ) from None
    return builder.close()


def _raw(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _text(path: Path) -> str:
    try:
        return _raw(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; convert or remove it") from None
