from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from instar.core import ids
from instar.core.errors import Blocked
from instar.core.store import Store
from instar.train import environment, environments, locks, tools
from instar.train.environment import Environment
from tests.train import wheels


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels instead of an index, and an empty cache."""
    links = tmp_path / "wheels"
    links.mkdir()
    for name, value in {
        "UV_OFFLINE": "1", "UV_NO_INDEX": "1", "UV_FIND_LINKS": str(links), "UV_CACHE_DIR": str(tmp_path / "cache"),
        "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links), "PIP_NO_CACHE_DIR": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    return links


def describe(store: Store, lock: str, file: str = "requirements.txt", **distributions: str) -> str:
    """The description of an environment with these distributions, in a project with that lock."""
    here = environment.capture()
    described = Environment(
        here.python, here.implementation, here.system, here.machine, distributions, lock=store.blobs.put(lock.encode()),
        lock_file=file, hashed=True,
    )  # fmt: skip
    return store.blobs.put(ids.canonical_json(msgspec.to_builtins(described)))


def imports(python: str, module: str) -> str:
    """What a module of an environment says of itself, without anything of ours on the path."""
    command = [python, "-P", "-c", f"import {module}; print({module}.WORD)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]})
    return done.stdout.strip()


def test_it_is_built_once_from_its_lock_and_then_found(store: Store, offline: Path) -> None:
    line = wheels.make(offline, "lamp", "1.0", {"lamp.py": "WORD = 'bright'\n"})
    described = describe(store, line, lamp="1.0")
    told: list[str] = []
    for _ in range(2):
        with environments.use(store, described, tell=told.append) as found:
            assert imports(found.python, "lamp") == "bright"
            assert found.notes == ()
    assert len(told) == 1
    (built,) = environments.listing(store)
    assert (built.by, built.digest) == ("uv", found.digest)
    assert environments.own_bytes(store, built.digest) < 200_000


def test_environments_share_their_files_and_equal_locks_one_environment(store: Store, offline: Path) -> None:
    lamp = wheels.make(offline, "lamp", "1.0", {"lamp.py": "WORD = 'bright'\n"})
    wire = wheels.make(offline, "wire", "2.0", {"wire.py": "WORD = 'long'\n"})
    one, both = describe(store, lamp, lamp="1.0"), describe(store, lamp + wire, lamp="1.0", wire="2.0")
    # Another lock of the project, which says the same of what is installed, is the same environment.
    again = describe(store, f"# annotated\n{lamp}{wire}", lamp="1.0")
    with environments.use(store, one) as first, environments.use(store, both) as second:
        with environments.use(store, again) as third:
            assert third.digest == first.digest != second.digest
        files = [next(Path(found.python).parents[1].rglob("lamp.py")) for found in (first, second)]
    assert os.path.samefile(*files)


def test_what_does_not_have_the_hash_of_the_lock_is_never_installed(store: Store, offline: Path) -> None:
    line = wheels.make(offline, "lamp", "1.0", {"lamp.py": "WORD = 'bright'\n"})
    described = describe(store, line, lamp="1.0")
    wheels.make(offline, "lamp", "1.0", {"lamp.py": "WORD = 'stolen'\n"})
    with pytest.raises(Blocked, match="cannot be built"), environments.use(store, described):
        pass
    assert environments.listing(store) == []


def test_what_was_left_half_built_is_built_anew(store: Store, offline: Path) -> None:
    line = wheels.make(offline, "lamp", "1.0", {"lamp.py": "WORD = 'bright'\n"})
    described = describe(store, line, lamp="1.0")
    lock = locks.lock_of(store, described)
    name = environments.key(environment.load(store.blobs, described), lock)
    half = environments.folder(store, name) / "venv" / "lib"
    half.mkdir(parents=True)
    (half / "rubbish").write_text("a process was killed here")
    assert environments.ready(store, name) is None
    with environments.use(store, described) as found:
        assert found.digest == name
        assert imports(found.python, "lamp") == "bright"
    assert not (half / "rubbish").exists()


def test_without_uv_venv_and_pip_do_it(store: Store, offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "uv", lambda: None)
    line = wheels.make(offline, "lamp", "1.0", {"lamp.py": "WORD = 'bright'\n"})
    wheels.make(offline, "wire", "2.0", {"wire.py": "WORD = 'long'\n"})
    with environments.use(store, describe(store, line, lamp="1.0", wire="2.0")) as found:
        assert [imports(found.python, name) for name in ("lamp", "wire")] == ["bright", "long"]
        assert found.notes == ("without a known hash, so by version only: wire",)
    assert environments.listing(store)[0].by == "pip"
    wheels.make(offline, "lamp", "1.0", {"lamp.py": "WORD = 'stolen'\n"})
    with pytest.raises(Blocked), environments.use(store, describe(store, line, lamp="1.0")):
        pass


def test_the_environment_that_runs_is_not_built_again(store: Store) -> None:
    described = environment.save(store.blobs, environment.capture())
    with environments.use(store, described) as found:
        assert (found.python, found.digest, found.paths) == (sys.executable, None, ())
    assert environments.listing(store) == []


def test_one_in_use_is_not_collected_and_one_that_is_not_goes(store: Store, offline: Path) -> None:
    line = wheels.make(offline, "lamp", "1.0", {"lamp.py": "WORD = 'bright'\n"})
    described = describe(store, line, lamp="1.0")
    long_ago = datetime.now(UTC) - timedelta(days=30)
    with environments.use(store, described) as found:
        assert found.digest is not None
        stamp = environments.folder(store, found.digest) / environments.STAMP
        os.utime(stamp, (long_ago.timestamp(), long_ago.timestamp()))
        assert environments.collect(store, found.digest, datetime.now(UTC)) is None
    assert environments.collect(store, found.digest, long_ago - timedelta(days=1)) is None
    assert environments.collect(store, found.digest, datetime.now(UTC)) is not None
    assert environments.listing(store) == []
    with environments.use(store, described) as found:
        assert imports(found.python, "lamp") == "bright"


def test_what_was_left_half_built_and_copies_of_another_instar_go(store: Store) -> None:
    place = environments.own_copy(store)
    other, half = place.with_name("c" * 64), environments.folder(store, "b3:" + "d" * 64)
    for left in (other, half):
        left.mkdir()
        (left / "file").write_text("left")
        os.utime(left, (1e9, 1e9))
    now = datetime.now(UTC)
    assert set(environments.leftovers(store, now, remove=False)) == {other.name, half.name}
    assert other.exists()
    assert set(environments.leftovers(store, now, remove=True)) == {other.name, half.name}
    assert (place.exists(), other.exists(), half.exists()) == (True, False, False)


def test_a_python_that_is_not_here_is_said(store: Store) -> None:
    described = msgspec.structs.replace(environment.capture(), python="3.2.1", distributions={})
    digest = store.blobs.put(ids.canonical_json(msgspec.to_builtins(described)))
    with pytest.raises(Blocked, match=r"Python 3\.2\.1"), environments.use(store, digest):
        pass


def test_the_copy_of_instar_is_by_its_content_and_imports_alone(store: Store) -> None:
    place = environments.own_copy(store)
    assert environments.own_copy(store) == place
    command = "import instar, importlib.metadata as m; print(instar.__file__, m.version('instar'))"
    done = subprocess.run(
        [sys.executable, "-P", "-S", "-c", command],
        env={"PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=True,
    )
    file, version = done.stdout.split()
    assert Path(file).is_relative_to(place)
    assert version == environment.capture().distributions["instar"]


HASH, OTHER = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("uv.lock", f'[[package]]\nname = "Lamp"\nversion = "1.0"\nsdist = {{ url = "u", hash = "sha256:{HASH}" }}\n'
                    f'wheels = [\n  {{ url = "u", hash = "sha256:{OTHER}" }},\n]\ndependencies = [{{ name = "wire" }}]\n'),
        ("poetry.lock", f'[[package]]\nname = "lamp"\nversion = "1.0"\nfiles = [\n  {{file = "f", hash = "sha256:{HASH}"}},\n'
                        f'  {{file = "g", hash = "sha256:{OTHER}"}},\n]\n'),
        ("pylock.toml", f'[[packages]]\nname = "lamp"\nversion = "1.0"\nsdist = {{ hashes = {{ sha256 = "{HASH}" }} }}\n'
                        f'wheels = [{{ hashes = {{ sha256 = "{OTHER}" }} }}]\n'),
        ("requirements.lock", f"lamp==1.0 ; python_version < '4' \\\n    --hash=sha256:{HASH} \\\n    --hash=sha256:{OTHER}\n"),
        ("requirements.txt", f"# made by hand\nlamp[all]==1.0 --hash=sha256:{OTHER} --hash=sha256:{HASH}\n-e .\n"),
    ],
)  # fmt: skip
def test_hashes_are_found_in_the_locks_of_all_tools(file: str, text: str) -> None:
    assert locks.hashes_in(text, file) == {("lamp", "1.0"): (f"sha256:{HASH}", f"sha256:{OTHER}")}


def test_the_lock_has_what_is_installed_and_no_more(store: Store) -> None:
    text = "".join(f"{name}=={version} --hash=sha256:{HASH}\n" for name, version in (("lamp", "1.0"), ("wire", "2.0")))
    described = Environment(
        "3.11.1", "cpython", "linux", "x86_64",
        {"lamp": "1.0", "wire": "2.1", "pip": "24", "mine": "0.1", "sent": "3.0", "instar": "0.1"},
        sources={"mine": "folder", "sent": f"https://example.org/sent-3.0.whl#sha256:{OTHER}", "wire": ""},
        lock=store.blobs.put(text.encode()), lock_file="requirements.txt",
    )  # fmt: skip
    made = locks.make(store, described)
    assert store.blobs.get(made.requirements).decode().splitlines() == [
        f"lamp==1.0 --hash=sha256:{HASH}",
        f"sent @ https://example.org/sent-3.0.whl --hash=sha256:{OTHER}",
        "wire==2.1",
    ]
    assert (made.unhashed, made.folders) == (("wire",), ("mine",))
