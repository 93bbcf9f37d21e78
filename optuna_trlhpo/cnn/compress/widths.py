"""Layouts: which layers the channels of a tensor come from, and which layers must have equal widths.

The channels of a tensor are a sequence of *segments*. A segment is the output of one group of layers, and all
layers of a group have the same width. Concatenation joins the segments of its inputs, addition merges their
groups, and flattening repeats each channel once per pixel.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Segment(NamedTuple):
    """Neighbouring features of a tensor that come from one group of layers.

    Attributes:
        group: Number of the group in `WidthGroups`.
        size: Width of the group in the original network.
        repeat: Number of features per channel: 1, or the number of pixels after flattening.
    """

    group: int
    size: int
    repeat: int = 1


Layout = tuple[Segment, ...]
"""Segments of the features of a tensor, in order."""


class WidthGroups:
    """Groups of layers with equal widths, merged as the network is read (a union-find structure).

    Examples:
        >>> groups = WidthGroups()
        >>> left, right = groups.new(8, "a"), groups.new(8, "b")
        >>> groups.tie((left,), (right,))
        >>> groups.find(left.group) == groups.find(right.group)
        True
        >>> groups.free()
        {0: 'a'}
    """

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._names: list[str] = []
        self._frozen: set[int] = set()
        self.sizes: list[int] = []

    def new(self, size: int, name: str) -> Segment:
        """Return the segment of a new group, the output of the layer ``name``."""
        self._parents.append(len(self._parents))
        self._names.append(name)
        self.sizes.append(size)
        return Segment(len(self._parents) - 1, size)

    def new_frozen(self, size: int) -> Segment:
        """Return the segment of a new group that keeps its width and belongs to no layer."""
        segment = self.new(size, "")
        self._frozen.add(segment.group)
        return segment

    def find(self, group: int) -> int:
        """Return the number that all merged groups share, the smallest of theirs."""
        while self._parents[group] != group:
            self._parents[group] = self._parents[self._parents[group]]
            group = self._parents[group]
        return group

    def freeze(self, layout: Iterable[Segment]) -> None:
        """Let all groups of the layout keep their widths."""
        self._frozen.update(self.find(segment.group) for segment in layout)

    def tie(self, first: Layout, second: Layout) -> None:
        """Let two tensors have the same channels.

        If their segments differ in form, as where a concatenation is added to the output of one layer, all
        groups of both keep their widths.
        """
        if [segment[1:] for segment in first] != [segment[1:] for segment in second]:
            self.freeze((*first, *second))
            return
        for one, other in zip(first, second, strict=True):
            low, high = sorted((self.find(one.group), self.find(other.group)))
            self._parents[high] = low
            if high in self._frozen:
                self._frozen.add(low)

    def is_free(self, group: int) -> bool:
        """Return whether the width of the group may change."""
        return self.find(group) not in self._frozen

    def free(self) -> dict[int, str]:
        """Return the groups whose width may change, each with the name of its first layer."""
        roots = [group for group in range(len(self._parents)) if self.find(group) == group]
        return {group: self._names[group] for group in roots if group not in self._frozen}
