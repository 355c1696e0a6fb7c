"""Figures, images and tables as files that a run can keep and the console can show, without importing their libraries.

What something is, is told by what it can do: a figure of matplotlib has `savefig`, one of plotly `to_html`, an image of
Pillow `save`, and an array its shape. PNG is written with the standard library.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import PurePosixPath
from typing import Any

from instar.core.errors import BadInput

_PNG = b"\x89PNG\r\n\x1a\n"
_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}  # colour type by channels: grey, grey and alpha, RGB, RGBA (PNG 1.2, 4.1.1)


def figure(drawn: Any, path: str) -> tuple[bytes, str]:
    """A figure of matplotlib, plotly or alike as a file: its bytes and its path with the right ending.

    Raises:
        BadInput: It is no figure that we know.
    """
    if hasattr(drawn, "get_figure") and not hasattr(drawn, "savefig"):  # an axis, as seaborn and pandas return it
        drawn = drawn.get_figure()
    if hasattr(drawn, "savefig"):
        ending = PurePosixPath(path).suffix or ".png"
        buffer = io.BytesIO()
        drawn.savefig(buffer, format=ending.lstrip("."), bbox_inches="tight")
        return buffer.getvalue(), _with(path, ending)
    if hasattr(drawn, "to_html"):
        return str(drawn.to_html()).encode(), _with(path, ".html")
    raise BadInput("that is no figure", found=type(drawn).__name__, asked="a figure of matplotlib or plotly")


def image(shown: Any, path: str) -> tuple[bytes, str]:
    """An image of Pillow, or an array (height, width) or (height, width, 1 to 4 channels), as PNG.

    Raises:
        BadInput: It is neither, or its values are no colours.
    """
    if hasattr(shown, "save") and hasattr(shown, "mode"):
        buffer = io.BytesIO()
        shown.save(buffer, format="PNG")
        return buffer.getvalue(), _with(path, ".png")
    if hasattr(shown, "detach"):  # a tensor of PyTorch
        shown = shown.detach().cpu().numpy()
    if not hasattr(shown, "shape"):
        raise BadInput("that is no image", found=type(shown).__name__, asked="an array or an image of Pillow")
    return png(shown), _with(path, ".png")


def png(pixels: Any) -> bytes:
    """PNG of an array: whole numbers from 0 to 255, truth values, or numbers from 0 to 1.

    Raises:
        BadInput: Its shape is no image's, or its values are no colours.
    """
    import numpy as np

    array = np.asarray(pixels)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in _COLOUR or 0 in array.shape:
        raise BadInput(
            "that is no image", found=f"shape {np.shape(pixels)}", asked="(height, width) or (height, width, channels)"
        )
    if array.dtype == bool:
        array = array * np.uint8(255)
    elif np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # also when one is no number
            raise BadInput("its values are no colours", found=f"{array.min()} to {array.max()}", asked="from 0 to 1")
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        if array.min() < 0 or array.max() > 255:
            raise BadInput("its values are no colours", found=f"{array.min()} to {array.max()}", asked="from 0 to 255")
        array = array.astype(np.uint8)
    height, width, channels = array.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR[channels], 0, 0, 0)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), array.reshape(height, width * channels)], axis=1)
    data = zlib.compress(lines.tobytes(), 6)
    return _PNG + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def table(rows: Any, path: str) -> tuple[bytes, str]:
    """A table as Parquet: a frame of Polars or pandas, columns by name, or rows as mappings.

    Raises:
        BadInput: It is no table.
    """
    import polars as pl

    try:
        if isinstance(rows, pl.LazyFrame):
            frame = rows.collect()
        elif isinstance(rows, pl.DataFrame):
            frame = rows
        elif hasattr(rows, "to_dict") and hasattr(rows, "columns"):
            frame = pl.from_pandas(rows.rename(columns=str))
        else:
            frame = pl.DataFrame(rows, strict=False)
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise BadInput(
            "that is no table", found=f"{type(rows).__name__}: {error}", asked="a frame, columns by name, or rows"
        ) from error
    return buffer.getvalue(), _with(path, ".parquet")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _with(path: str, ending: str) -> str:
    return path if path.endswith(ending) else path + ending
