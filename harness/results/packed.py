"""The large fields of a record, stored as on disk and unpacked on access.

Lists and dicts of the same numbers take ten times the memory, and most members are never looked at in detail.
"""

import json
import math
from abc import abstractmethod
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

Layout = dict[str, tuple[int, tuple[int, ...]]]


SHORT = 512  # characters that are not worth compressing


class PackedMapping(Mapping[str, Any]):
    """An immutable mapping over a text or bytes object; its values are plain containers.

    Equal content compares equal, so NaN equals NaN; otherwise it is compared as a mapping.
    """

    __slots__ = ("content",)
    content: Any

    @abstractmethod
    def plain(self) -> dict[str, Any]:
        """Return all values as plain containers."""

    @abstractmethod
    def check(self) -> None:
        """Check that the content can be unpacked.

        Raises:
            ValueError: if it cannot.
        """

    def items(self) -> ItemsView[str, Any]:
        return self.plain().items()

    def values(self) -> ValuesView[Any]:
        return self.plain().values()

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, PackedMapping) and self.content == other.content) or super().__eq__(other)

    def __repr__(self) -> str:
        return repr(self.plain())


class PackedJson(PackedMapping):
    """A JSON document, stored as text; the last document accessed stays parsed, so that `dict(document)` parses once.

    >>> PackedJson.of({"units": [{"mean": None}]})["units"]
    [{'mean': None}]
    """

    __slots__ = ("_packed",)
    _packed: str | tuple[bytes, int]

    def __init__(self, content: str = "{}") -> None:
        self._packed = content

    @classmethod
    def compressed(cls, content: str) -> "PackedJson":
        """Hold a document compressed, in two fifths of the memory: for thousands of members that are read at once.

        >>> PackedJson.compressed('{"units": 4}')["units"]
        4
        """
        if len(content) < SHORT:
            return cls(content)
        document, text = cls(), content.encode()
        document._packed = (_codec().compress(text, asbytes=True), len(text))
        return document

    def __reduce__(self) -> tuple[type["PackedJson"], tuple[str]]:
        return PackedJson, (self.content,)

    @property
    def content(self) -> str:
        """The document's text."""
        if isinstance(self._packed, str):
            return self._packed
        packed, length = self._packed
        return str(_codec().decompress(packed, length, asbytes=True).decode())

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "PackedJson":
        """Pack these values."""
        return values if isinstance(values, cls) else cls(json.dumps(dict(values)))

    @classmethod
    def of_bytes(cls, content: bytes) -> "PackedJson":
        """Read the result of `to_bytes`."""
        return cls(content.decode())

    def to_bytes(self) -> bytes:
        """Return the content as bytes."""
        return bytes(self.content.encode())

    def plain(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.content)
        return document

    def check(self) -> None:
        if not isinstance(from_json(self.content), dict):  # three times as fast as `json.loads`
            raise ValueError("expected a JSON object")  # of a damaged file

    def __getitem__(self, name: str) -> Any:
        return self._parsed()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parsed())

    def __len__(self) -> int:
        return len(self._parsed())

    def _parsed(self) -> dict[str, Any]:
        if _last[0] is not self._packed:
            _last[:] = [self._packed, self.plain()]
        document: dict[str, Any] = _last[1]
        return document


class PackedArrays(PackedMapping):
    """Named arrays of numbers: a line of JSON, name -> shape, then the float64 values of the arrays in order.

    >>> PackedArrays.of({"step": [0, 42], "mean": [[1, 2], [3, 4]]})["mean"]
    [[1.0, 2.0], [3.0, 4.0]]
    """

    __slots__ = ()

    def __init__(self, content: bytes = b"{}\n") -> None:
        self.content = content

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "PackedArrays":
        """Pack these values; each is rectangular, and None becomes NaN."""
        if isinstance(values, cls):
            return values
        arrays = {name: np.asarray(array, dtype=np.float64) for name, array in values.items()}
        head = json.dumps({name: array.shape for name, array in arrays.items()}).encode()
        return cls(head + b"\n" + b"".join(array.tobytes() for array in arrays.values()))

    @classmethod
    def of_bytes(cls, content: bytes) -> "PackedArrays":
        """Read the result of `to_bytes`."""
        return cls(content)

    def to_bytes(self) -> bytes:
        """Return the content, which is bytes."""
        return bytes(self.content)

    def array(self, name: str) -> NDArray[np.float64]:
        """Return one array, without a copy."""
        start, shape = self._layout()[name]
        values: NDArray[np.float64] = np.frombuffer(self.content, np.float64, math.prod(shape), start).reshape(shape)
        return values

    def plain(self) -> dict[str, Any]:
        return {name: self[name] for name in self}

    def check(self) -> None:
        expected = _length(self.content[: self.content.index(b"\n") + 1])
        if len(self.content) != expected:
            raise ValueError(f"expected {expected} bytes of arrays, got {len(self.content)}")

    def __getitem__(self, name: str) -> Any:
        return self.array(name).tolist()

    def __contains__(self, name: object) -> bool:
        return name in self._layout()

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout())

    def __len__(self) -> int:
        return len(self._layout())

    def _layout(self) -> Layout:
        return _layout(self.content[: self.content.index(b"\n") + 1])


@lru_cache(maxsize=1)
def _codec() -> Any:
    """LZ4: 9 microseconds for a diagnosis of 13 kB, which zlib compresses in 53."""
    from pyarrow import Codec

    return Codec("lz4")


_last: list[Any] = [None, {}]  # the packed form and the content of the last document accessed


@lru_cache(maxsize=256)
def _length(head: bytes) -> int:
    """Length of the content with this header."""
    return len(head) + 8 * sum(math.prod(shape) for _, shape in _layout(head).values())


@lru_cache(maxsize=256)  # the members of an experiment share a few headers
def _layout(head: bytes) -> Layout:
    """Map each name to (first byte, shape)."""
    start, layout = len(head), {}
    for name, shape in json.loads(head).items():
        layout[name] = (start, tuple(shape))
        start += 8 * math.prod(shape)
    return layout
