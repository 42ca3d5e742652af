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
from xml.etree.ElementTree import Element

import msgspec
import numpy as np

from edge.card import Label
from edge.datasets import PICTURES, VAL_FOLDERS, label_index, name_key, part_folder, picture_files
from edge.errors import DataError
from edge.label_files import parse_xml, read_text, yolo_class_names, yolo_names_file
from edge.label_notes import LabelNotes
from edge.lists import Place, place_of
from edge.pictures import decode_picture, upright_size
from edge.types import Bools, Float32, Int64

Split = Literal["train", "val"]
VOC_SIDES = ("xmin", "ymin", "xmax", "ymax")
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


def labelled_boxes(
    folder: Path, labels: Sequence[Label], split: Split | None = None, notes: LabelNotes | None = None
) -> list[BoxSample]:
    """The pictures of a folder with their boxes; the layout, COCO, VOC or YOLO, is told by what lies in it.

    `split` takes only that part where the layout names parts. COCO, VOC and YOLO with a names file or data.yaml match
    the labels by name, case aside; YOLO without takes its class numbers for label indices. Pictures without a label
    are backgrounds. A picture list (edge/lists.py) stands for its folder; what it leaves out is not looked at. Raises
    DataError naming the file, and the line where it has lines, of what cannot be, unless `notes` takes it.
    """
    place = place_of(folder)
    if not os.path.isdir(place.folder):
        raise DataError(f"{folder}: no such folder; give a folder of pictures with boxes in YOLO, COCO or VOC files")
    from edge.kept import is_kept, kept_boxes  # which imports this module

    if is_kept(place.folder):
        return [sample for sample in kept_boxes(place.folder, labels) if place.keeps(sample.path)]
    if split is not None and not os.path.isdir(place.folder / "images"):
        place = Place(_part(place.folder, split), place.kept)
    for layout in (_coco, _voc, _yolo):
        samples = layout(place, labels, split, notes or LabelNotes())
        if samples:
            if notes is None and not any(len(sample.boxes_xyxy) for sample in samples):
                raise DataError(f"{folder}: none of its {len(samples)} pictures has a labelled box")
            return samples
    raise DataError(
        f"{folder}: no labelled boxes found; expected images/ beside labels/*.txt (YOLO), annotations/*.json (COCO) or "
        "annotations/*.xml (VOC)"
    )


def _part(folder: Path, split: Split) -> Path:
    """The folder of a part, or all of it where it names none."""
    part = part_folder(folder, split)
    return part if os.path.isdir(part) else folder


def _sample(path: Path, objects: Iterable[_Object], notes: LabelNotes, size_wh: tuple[int, int] | None = None) -> BoxSample:
    """A sample of objects, clipped to the picture where its size is known; those without an area are left out."""
    found = list(objects)
    boxes = np.array([item.box_xyxy for item in found], np.float64).reshape(-1, 4)
    notes.boxes(path, boxes, [item.class_id for item in found])
    boxes = np.clip(boxes, 0, None if size_wh is None else np.array(size_wh * 2))
    kept = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(axis=1)
    class_ids = np.array([item.class_id for item in found], np.int64)
    ignored = np.array([item.ignored for item in found], np.bool_)
    return BoxSample(path, boxes[kept].astype(np.float32), class_ids[kept], ignored[kept])


# YOLO: a line an object, class and centre x, centre y, width, height in parts of the picture, or class and a polygon


def _yolo(place: Place, labels: Sequence[Label], split: Split | None, notes: LabelNotes) -> list[BoxSample]:
    folder = place.folder
    images = folder / "images" if os.path.isdir(folder / "images") else folder
    if split is not None:
        images = _part(images, split)
    pairs = [(path, _yolo_label(path, folder)) for path in picture_files(images) if place.keeps(path)]
    if not any(os.path.isfile(label) for _, label in pairs):
        return []
    class_ids = _yolo_classes(folder, labels)
    return [_yolo_sample(path, label, class_ids, notes) for path, label in pairs]


def _yolo_label(picture: Path, folder: Path) -> Path:
    """images/PART/x.jpg → labels/PART/x.txt, or the text file beside the picture."""
    parts = list(picture.relative_to(folder).parts)
    if parts[0] == "images":
        parts[0] = "labels"
    return (folder / Path(*parts)).with_suffix(".txt")


def _yolo_classes(folder: Path, labels: Sequence[Label]) -> Callable[[int], int | str]:
    """A function from a class number of this dataset to the label's index, or to what is wrong with it."""
    names_file = yolo_names_file(folder)
    if names_file is None:
        return lambda number: number if number < len(labels) else f"class {number} of {len(labels)} labels, and no names file"
    names = yolo_class_names(names_file)
    index = label_index(labels)

    def find(number: int) -> int | str:
        if number not in names:
            return f"class {number}, which {names_file} does not name"
        return index.get(name_key(names[number]), f"class {names[number]!r} ({names_file}), which is none of the labels")

    return find


def _yolo_sample(path: Path, label: Path, class_ids: Callable[[int], int | str], notes: LabelNotes) -> BoxSample:
    labelled = os.path.isfile(label)
    notes.pair(path, label if labelled else None)
    try:
        lines = [line.split() for line in read_text(label).splitlines()] if labelled else []
    except DataError as error:
        notes.wrong(path, str(error))
        lines = []
    size_wh = _size(path) if any(lines) else None
    objects = []
    for number, words in enumerate(lines, start=1):
        if not words:
            continue
        found = _yolo_object(words, class_ids)
        if isinstance(found, str):
            notes.wrong(path, f"{label}, line {number}: {found}; correct or remove it")
        else:
            objects.append(found)
    if size_wh is None:  # unreadable, as whoever reads it will say
        return _sample(path, [], notes)
    scale = size_wh * 2
    scaled = [
        _Object(item.class_id, tuple(v * s for v, s in zip(item.box_xyxy, scale, strict=True)))  # type: ignore[arg-type]
        for item in objects
    ]
    return _sample(path, scaled, notes, size_wh)


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


def _coco(place: Place, labels: Sequence[Label], split: Split | None, notes: LabelNotes) -> list[BoxSample]:
    boxed = coco_files(place.folder)
    named = [path for path in boxed if split is not None and split in path.stem]
    return [sample for path in named or boxed for sample in _coco_file(path, place, label_index(labels), notes)]


def coco_files(folder: Path) -> list[Path]:
    """The JSON files of a folder that may be COCO's of boxes."""
    files = [path for place in (folder, folder / "annotations") for path in sorted(place.glob("*.json"))]
    return [path for path in files if not {"captions", "person_keypoints", "panoptic"} & {path.stem.rpartition("_")[0]}]


def coco_categories(path: Path) -> list[str]:
    """The names of a COCO file's categories that its boxes use, in the order of their ids. Raises DataError."""
    data = _coco_data(path)
    used = {item.category_id for item in data.annotations}
    return [item.name for item in sorted(data.categories, key=lambda item: item.id) if item.id in used]


def _coco_data(path: Path) -> _Coco:
    try:
        return msgspec.json.decode(read_text(path), type=_Coco)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DataError(f"{path}: not COCO's JSON of images, annotations and categories: {error}") from None


def _coco_file(path: Path, place: Place, index: dict[str, int], notes: LabelNotes) -> list[BoxSample]:
    data = _coco_data(path)
    names = {category.id: category.name for category in data.categories}
    folder = _coco_folder(path, place.folder, data.images[0].file_name if data.images else "")
    pictures = {image.id: folder / image.file_name for image in data.images if place.keeps(folder / image.file_name)}
    objects: dict[int, list[_Object]] = {image_id: [] for image_id in pictures}
    for item in data.annotations:
        if item.image_id not in objects:
            if place.kept is None:
                said = f"{path}: annotation {item.id}: image_id {item.image_id} is none of its images; correct or remove it"
                notes.wrong(None, said)
            continue
        found = _coco_object(item, names, index)
        if isinstance(found, str):
            notes.wrong(pictures[item.image_id], f"{path}: annotation {item.id}: {found}")
        else:
            objects[item.image_id].append(found)
    for picture in pictures.values():
        notes.pair(picture, path)
    return [_sample(picture, objects[image_id], notes) for image_id, picture in pictures.items()]


def _coco_object(item: _CocoAnnotation, names: dict[int, str], index: dict[str, int]) -> _Object | str:
    """An annotation's object, or what is wrong with it."""
    x, y, width, height = item.bbox
    if not all(math.isfinite(value) for value in item.bbox) or width < 0 or height < 0:
        return f"bbox {list(item.bbox)}, expected x, y, width, height; correct or remove it"
    class_id = index.get(name_key(names.get(item.category_id, "")))
    if class_id is None:
        name = names.get(item.category_id, f"number {item.category_id}")
        return f"category {name!r} is none of the labels; correct it or the labels"
    return _Object(class_id, (x, y, x + width, y + height), item.iscrowd != 0)


def _coco_folder(path: Path, folder: Path, first: str) -> Path:
    """Where the pictures of a COCO file are: where its first one is."""
    part = path.stem.rpartition("_")[2]
    places = [*(folder / name for name in PICTURE_FOLDERS), folder / part, folder / "images" / part, path.parent]
    return next((place for place in places if os.path.isfile(place / first)), places[0])


# Pascal VOC: an XML a picture, pixels counted from 1 and the last one included (Everingham et al., 2010)


def _voc(place: Place, labels: Sequence[Label], split: Split | None, notes: LabelNotes) -> list[BoxSample]:
    folder = place.folder
    files = voc_files(folder)
    names = [folder / "ImageSets" / "Main" / f"{name}.txt" for name in (VAL_FOLDERS if split == "val" else (split,))]
    chosen = next((path for path in names if os.path.isfile(path)), None)
    if files and chosen is not None:
        stems = {line.split()[0] for line in read_text(chosen).splitlines() if line.strip()}
        files = [path for path in files if path.stem in stems]
    pictures = {path.stem: path for name in PICTURE_FOLDERS if files for path in _pictures_in(folder / name)}
    index = label_index(labels)
    samples = [_voc_file(path, pictures, place, index, notes) for path in files]
    return [sample for sample in samples if sample is not None]


def voc_files(folder: Path) -> list[Path]:
    """The XML files of a folder that may be VOC's."""
    place = next((folder / name for name in VOC_FOLDERS if any((folder / name).glob("*.xml"))), folder)
    return sorted(place.glob("*.xml"))


def voc_names(path: Path) -> set[str]:
    """The names of a VOC file's objects. Raises DataError."""
    return {(item.findtext("name") or "").strip() for item in parse_xml(path).iter("object")}


def _pictures_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*")) if path.suffix.lower() in PICTURES]


def _voc_file(
    path: Path, pictures: dict[str, Path], place: Place, index: dict[str, int], notes: LabelNotes
) -> BoxSample | None:
    picture = pictures.get(path.stem)
    try:
        if picture is not None and not place.keeps(picture):
            return None
        root = parse_xml(path)
    except DataError as error:
        if picture is not None or place.kept is None:
            notes.wrong(picture, str(error))
        return None
    picture = picture or pictures.get(Path(root.findtext("filename") or "").stem)
    notes.pair(picture, path)
    picture = picture or place.folder / (root.findtext("filename") or path.with_suffix(".jpg").name).strip()
    if not place.keeps(picture):
        return None
    objects = []
    for number, item in enumerate(root.iter("object"), start=1):
        found = _voc_object(item, index)
        if isinstance(found, str):
            notes.wrong(picture, f"{path}: object {number}: {found}")
        else:
            objects.append(found)
    return _sample(picture, objects, notes)


def _voc_object(item: Element, index: dict[str, int]) -> _Object | str:
    """An element's object, or what is wrong with it."""
    name = (item.findtext("name") or "").strip()
    if name_key(name) not in index:
        return f"{name!r} is none of the labels; correct it or the labels"
    try:
        left, top, right, bottom = (float(item.findtext(f"bndbox/{side}") or "") for side in VOC_SIDES)
    except ValueError:
        return "its bndbox lacks a number for xmin, ymin, xmax or ymax; correct or remove it"
    if not (math.isfinite(left + top + right + bottom) and left <= right and top <= bottom):
        return f"bndbox {left:g} {top:g} {right:g} {bottom:g} has its corners swapped; correct it"
    difficult = (item.findtext("difficult") or "0").strip() == "1"
    return _Object(index[name_key(name)], (left - 1, top - 1, right, bottom), difficult)
