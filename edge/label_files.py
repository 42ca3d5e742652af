"""Reading the files that labels lie in: text, XML and lists of class names, each with one line about what is wrong."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from edge.class_names import yaml_names
from edge.errors import DataError

NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "names", "names.txt", "classes.txt", "obj.names", "labels.txt")


def yolo_names_file(folder: Path) -> Path | None:
    """The file beside or above YOLO's labels that names the classes, where there is one."""
    places = (place / name for place in (folder, folder.parent) for name in NAME_FILES)
    return next((path for path in places if path.is_file()), None)


def yolo_class_names(path: Path) -> dict[int, str]:
    """Class number → name, of a data.yaml or a file of a name a line. Raises DataError."""
    text = read_text(path)
    if path.suffix in (".yaml", ".yml"):
        return yaml_names(text, str(path))
    return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))


def parse_xml(path: Path) -> Element:
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


def read_text(path: Path) -> str:
    """A file's UTF-8 text, without its mark. Raises DataError."""
    try:
        return _raw(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; convert or remove it") from None
