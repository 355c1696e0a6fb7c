"""Secrets: made, told from typing errors, found in headers and files, hidden in texts."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.core import credentials
from instar.core.errors import BadInput


def test_a_secret_has_a_form_that_scanners_know_and_is_never_the_same() -> None:
    made = {credentials.new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(one.startswith("instar_") and len(one) == 56 and credentials.is_secret(one) for one in made)


@given(place=st.integers(7, 55), letter=st.sampled_from("0Aaz_é"))
def test_a_typing_error_is_told(place: int, letter: str) -> None:
    secret = credentials.new_secret()
    wrong = secret[:place] + letter + secret[place + 1 :]
    assert credentials.is_secret(wrong) == (wrong == secret)


@given(text=st.binary(max_size=80))
def test_any_header_is_read_without_a_fault(text: bytes) -> None:
    for scheme in (b"", b"Bearer ", b"Basic ", b"basic " + base64.b64encode(text)):
        found = credentials.of_header(scheme + text)
        assert found is None or isinstance(found, str)


def test_a_header_has_the_secret_of_a_bearer_or_as_a_password() -> None:
    assert credentials.of_header(b"Bearer abc") == "abc"
    assert credentials.of_header(b"bearer   abc ") == "abc"
    assert credentials.of_header(b"Basic " + base64.b64encode(b"ada:abc")) == "abc"
    assert credentials.of_header(b"Basic " + base64.b64encode(b"abc:")) == "abc"
    assert credentials.of_header(b"Digest abc") is None
    assert credentials.of_header(b"Basic !") is None


def test_a_file_of_a_token_is_the_owners_alone(tmp_path: Path) -> None:
    place = tmp_path / "token"
    place.write_text("instar_abc\n")
    place.chmod(0o644)
    with pytest.raises(BadInput, match="others may read"):
        credentials.of_environment({"INSTAR_TOKEN_FILE": str(place)})
    place.chmod(0o600)
    assert credentials.of_environment({"INSTAR_TOKEN_FILE": str(place)}) == "instar_abc"
    assert credentials.of_environment({"INSTAR_TOKEN": "x", "INSTAR_TOKEN_FILE": str(place)}) == "x"
    assert credentials.of_environment({}) is None
    with pytest.raises(BadInput, match="no token"):
        credentials.of_environment({"INSTAR_TOKEN": "two\nlines"})


def test_no_secret_is_left_in_a_masked_text() -> None:
    secret = credentials.new_secret()
    assert credentials.masked(f"a {secret} b") == "a instar_… b"
