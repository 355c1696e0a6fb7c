"""Figures, images and tables become files that can be read again; what is none of them is refused."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.core.errors import BadInput
from instar.interfaces.sdk import media


def read_png(data: bytes) -> np.ndarray[Any, Any]:
    """Pixels of a PNG without filters, as we write it."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    place, parts = 8, {}
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert struct.unpack_from(">I", data, place + 8 + length)[0] == zlib.crc32(kind + content)
        parts[kind] = content
        place += 12 + length
    width, height, depth, colour, *_ = struct.unpack(">IIBBBBB", parts[b"IHDR"])
    channels = {0: 1, 4: 2, 2: 3, 6: 4}[colour]
    assert depth == 8
    lines = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, 1 + width * channels)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, channels)


@given(height=st.integers(1, 5), width=st.integers(1, 5), channels=st.integers(1, 4), seed=st.integers(0, 99))
def test_pixels_come_back_as_they_were(height: int, width: int, channels: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8)
    assert (read_png(media.png(pixels)) == pixels).all()
    assert (read_png(media.png(pixels.astype(int))) == pixels).all()
    assert (read_png(media.png(pixels / 255)) == pixels).all()
    assert (read_png(media.png(pixels[:, :, 0] > 9))[:, :, 0] == (pixels[:, :, 0] > 9) * 255).all()


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((2, 2, 5)), np.zeros(3), np.zeros((0, 2)), np.array([[1.5]]), np.array([[-1]]), np.array([[300]]),
     np.array([[np.nan]]), [], "text", 3],
)  # fmt: skip
def test_what_is_no_image_is_refused(wrong: Any) -> None:
    with pytest.raises(BadInput):
        media.image(wrong, "x")


def test_an_image_of_pillow_and_a_tensor_are_taken_by_what_they_can_do() -> None:
    class Pillow:
        mode = "RGB"

        def save(self, buffer: io.BytesIO, format: str) -> None:
            buffer.write(format.encode())

    class Tensor:
        shape = (1, 1)

        def detach(self) -> Tensor:
            return self

        cpu = detach

        def numpy(self) -> Any:
            return np.array([[0.5]])

    assert media.image(Pillow(), "a.png") == (b"PNG", "a.png")
    data, path = media.image(Tensor(), "b")
    assert (path, read_png(data).item()) == ("b.png", 128)


def test_figures_are_kept_in_their_own_form() -> None:
    class Plotly:
        def to_html(self) -> str:
            return "<html>"

    class Axis:
        def get_figure(self) -> Plotly:
            return Plotly()

    assert media.figure(Plotly(), "a") == (b"<html>", "a.html")
    assert media.figure(Axis(), "a.html") == (b"<html>", "a.html")
    with pytest.raises(BadInput, match="no figure"):
        media.figure([1, 2], "a")


def test_a_real_figure_of_matplotlib_becomes_a_picture() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    drawn = Figure()
    drawn.subplots().plot([1, 2])
    data, path = media.figure(drawn, "curve")
    assert path == "curve.png"
    assert data.startswith(b"\x89PNG")
    assert media.figure(drawn, "curve.svg")[0].lstrip().startswith(b"<?xml")


ROWS = [{"a": 1, "b": "x"}, {"a": 2, "b": None}]


@pytest.mark.parametrize(
    "rows",
    [ROWS, {"a": [1, 2], "b": ["x", None]}, pl.DataFrame(ROWS), pl.LazyFrame(ROWS), pl.DataFrame(ROWS).to_pandas()],
    ids=["rows", "columns", "frame", "lazy", "pandas"],
)
def test_tables_in_any_form_are_the_same_parquet(rows: Any) -> None:
    data, path = media.table(rows, "rows")
    assert path == "rows.parquet"
    assert pl.read_parquet(data).to_dicts() == ROWS


def test_what_is_no_table_is_refused() -> None:
    for wrong in (3, object(), [object()]):
        with pytest.raises(BadInput, match="no table"):
            media.table(wrong, "rows")
