"""A YAML file with the line of each of its entries, so that an error can say where it is.

Reads with the safe tags only, and refuses what YAML lets pass in silence: a key that is given
twice. Knows nothing of what the entries mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from medgen.errors import BadInput

Place = tuple[str | int, ...]


class Lines:
    """The values of a YAML file, and where each stands.

    Args:
        path: The file, UTF-8.

    Attributes:
        values: As `yaml.safe_load` gives them.

    Raises:
        BadInput: It cannot be read, is no YAML, or gives a key twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[Place, int] = {}
        try:
            text = path.read_text(encoding="utf-8")
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            if root is not None:
                for place, node in _nodes(path, root, ()):
                    self._lines[place] = node.start_mark.line + 1
            self.values: Any = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise BadInput(f"{path} cannot be read ({reason}): check the path") from error
        except RecursionError as error:
            raise BadInput(f"{path} nests too deeply: it is no specification") from error
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f":{mark.line + 1}" if mark else ""
            problem = getattr(error, "problem", None) or str(error).splitlines()[0]
            raise BadInput(f"{path}{where}: no YAML ({problem}): correct the line") from error

    def line(self, place: Sequence[str | int]) -> int:
        """The line of an entry, or of the innermost thing around it that the file has."""
        told = tuple(place)
        while told and told not in self._lines:
            told = told[:-1]
        return self._lines.get(told, 1)


def _nodes(path: Path, node: yaml.Node, place: Place) -> Iterator[tuple[Place, yaml.Node]]:
    yield place, node
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield from _nodes(path, child, (*place, index))
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, child in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen:
                raise BadInput(
                    f"{path}:{line}: {name!r} was given on line {seen[name]} already: keep one"
                )
            seen[name] = line
            for inner, found in _nodes(path, child, (*place, name)):
                yield inner, key if inner == (*place, name) else found
