"""The shared batch: memory in which a server puts the rows of one batch, and a process of an engine their outputs.

Both sides compute the places of the arrays from the signature of the graph and the number of rows. Nothing that the
process writes is taken for more than numbers.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from service.bundle.precision import FloatType
from service.onnx.signature import Signature
from service.plan import Floats, Outputs

__all__ = ["BatchLayout", "SharedBatch"]

_HEADER: Final = struct.Struct("=q")
"""The number of the last batch that the process has begun with."""

_START: Final = 64
"""The place of the first array, in bytes."""


class BatchLayout:
    """The places of the arrays of a graph: its inputs one after the other, then its outputs.

    Args:
        signature: of the graph.
    """

    def __init__(self, signature: Signature) -> None:
        self.file = signature.file
        self.dtype: FloatType = signature.dtype
        self.inputs = [(shape, math.prod(shape)) for shape in signature.inputs.values()]
        """The shape of one row of each input, and the number of its values."""
        self.outputs = [(shape, math.prod(shape)) for shape in signature.outputs.values()]
        self.input_bytes = sum(values for _, values in self.inputs) * self.dtype.itemsize
        """The bytes of one row of all inputs."""
        self.output_values = sum(values for _, values in self.outputs)

    def size(self, rows: int) -> int:
        """The bytes of a batch of so many rows."""
        return _START + (self.input_bytes + self.output_values * self.dtype.itemsize) * rows


class SharedBatch:
    """The memory of one process, on either side.

    Args:
        file: the descriptor of a `service.children.memory_file`, with room for the layouts that are used.
    """

    def __init__(self, file: int) -> None:
        self._memory = mmap.mmap(file, 0)
        self._size = len(self._memory)

    @property
    def begun(self) -> int:
        """The number of the last batch that the process has begun with; 0 before the first."""
        number: int = _HEADER.unpack_from(self._memory)[0]
        return number

    def begin(self, number: int) -> None:
        """Tell that the process begins with a batch."""
        _HEADER.pack_into(self._memory, 0, number)

    def write_inputs(self, layout: BatchLayout, inputs: Sequence[Floats]) -> None:
        """Put the rows of a batch, and their context where there is one, into the memory.

        Args:
            layout: of the graph.
            inputs: one array for each input of the graph.

        Raises:
            ValueError: there are more rows than the memory has room for.
        """
        count = len(inputs[0])
        if layout.size(count) > self._size:
            raise ValueError(f"the memory of this engine has no room for {count} rows of {layout.file}")
        self._write(layout.inputs, layout.dtype, _START, inputs)

    def inputs(self, layout: BatchLayout, rows: int) -> list[Floats]:
        """The inputs of a batch: the memory itself.

        Args:
            layout: of the graph.
            rows: their number.
        """
        arrays: list[Floats] = []
        at = _START
        for shape, values in layout.inputs:
            arrays.append(np.frombuffer(self._memory, layout.dtype, rows * values, at).reshape(rows, *shape))
            at += rows * values * layout.dtype.itemsize
        return arrays

    def write_outputs(self, layout: BatchLayout, outputs: Outputs) -> None:
        """Put the outputs of a batch into the memory.

        Args:
            layout: of the graph.
            outputs: of all rows of the batch.
        """
        start = _START + layout.input_bytes * len(outputs.log_prob)
        self._write(layout.outputs, layout.dtype, start, outputs.arrays)

    def read_outputs(self, layout: BatchLayout, rows: int, *, finite: bool) -> Outputs:
        """The outputs of a batch, in memory of their own.

        Args:
            layout: of the graph.
            rows: their number.
            finite: whether all outputs are known to be finite.
        """
        start = _START + layout.input_bytes * rows
        every = np.frombuffer(self._memory, layout.dtype, layout.output_values * rows, start).copy()  # one for all
        arrays: list[Floats] = []
        at = 0
        for shape, values in layout.outputs:
            arrays.append(every[at : at + rows * values].reshape(rows, *shape))
            at += rows * values
        value, ladj, log_prob = arrays
        return Outputs(value, ladj, log_prob, finite)

    def _write(
        self, tensors: Iterable[tuple[tuple[int, ...], int]], dtype: FloatType, at: int, arrays: Iterable[Floats]
    ) -> None:
        for (shape, values), array in zip(tensors, arrays, strict=True):
            count = len(array) * values
            np.frombuffer(self._memory, dtype, count, at).reshape(len(array), *shape)[...] = array
            at += count * dtype.itemsize
