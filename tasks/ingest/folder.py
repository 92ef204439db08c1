"""Finds the folder of a published dataset, and the files in it that rows name."""

from collections.abc import Sequence
from pathlib import Path

from tasks.ingest.finding import problem


def find_root(root: Path | None, dataset: str, layouts: Sequence[str]) -> tuple[Path, str]:
    """Find the folder that holds a published dataset, and which of its layouts it has.

    Args:
        root: the folder that the user named.
        dataset: its name, for the message.
        layouts: for each layout a pattern, relative to root, of a file that only this layout has.

    Returns the folder of the first file found, and the pattern that found it.
    """
    remedy = "set dataset.root to the folder that holds the dataset as published"
    folder, expected = named_folder(root, dataset, layouts, remedy)
    try:
        for layout in layouts:
            for path in folder.glob(layout):
                return path.parent, layout
    except OSError as error:
        raise problem(str(root), expected, f"an unreadable folder ({error.strerror})", remedy) from None
    raise problem(str(root), expected, "none of them", remedy)


def named_folder(root: Path | None, dataset: str, layouts: Sequence[str], remedy: str) -> tuple[Path, str]:
    """Check the folder that the user named; also returns what is expected in it, for messages."""
    expected = f"the {dataset} dataset with one of " + ", ".join(f"`{layout}`" for layout in layouts)
    if root is None:
        raise problem("dataset.root", expected, "no folder", remedy)
    try:
        if not root.is_dir():
            raise problem(str(root), expected, "a file" if root.exists() else "no such folder", remedy)
    except OSError as error:
        raise problem(str(root), expected, f"an unreadable folder ({error.strerror})", remedy) from None
    return root, expected


def resolve(root: Path, *parts: str, where: str) -> Path:
    """Resolve the file below root that a row names.

    Refuses any path out of root: an absolute path, `..` or a symbolic link.
    """
    base = root.resolve()
    try:
        path = base.joinpath(*parts).resolve()
        inside = path.is_relative_to(base)
    except (OSError, RuntimeError, ValueError):  # too long a name, a loop of links, a zero byte
        inside = False
    if not inside:
        raise problem(where, "a file inside the dataset's folder", "a path that leaves it", "correct the row")
    return path
