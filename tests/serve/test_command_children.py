"""Programs that serve models, as children: nothing of them outlives its end, and no other program answers in their name."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from instar.core.errors import StepFailed, Unavailable
from instar.serve.processes import fence
from instar.serve.worker.commands import answers, child, listeners
from instar.serve.worker.commands.child import Child
from instar.serve.worker.commands.line import Line

# It says its process, ignores that it shall end, and is ready at once.
PROGRAM = """
import os, signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
signal.signal(signal.SIGTERM, signal.SIG_IGN)
class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(os.getpid()).encode())
HTTPServer(("127.0.0.1", int(os.environ["INSTAR_PORT"])), Handler).serve_forever()
"""


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    (tmp_path / "program.py").write_text(PROGRAM)
    return [sys.executable, str(tmp_path / "program.py")]


def behind_a_shell(program: list[str], folder: Path) -> tuple[Child, int]:
    """A shell that started the program and waits for it; and the program's own process."""
    started = Child("model probe", ["sh", "-c", f"{' '.join(program)} & wait"], folder, "probe", {})
    started.wait_ready(60)
    with Line(child.HOST, started.port, 10) as line:
        return started, int(line.ask("GET", "/").body)


def wait_gone(pid: int) -> None:
    if Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]:
        descriptor = os.pidfd_open(pid)
        try:
            assert select.select([descriptor], [], [], 20)[0], f"process {pid} lives on"
        finally:
            os.close(descriptor)


@pytest.mark.skipif(sys.platform != "linux", reason="pidfd_open")
def test_what_a_shell_started_ends_with_it_though_it_ignores_the_signal(program: list[str], tmp_path: Path) -> None:
    started, pid = behind_a_shell(program, tmp_path)
    started.end()
    wait_gone(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="pidfd_open")
def test_what_a_shell_started_ends_when_the_shell_was_killed(program: list[str], tmp_path: Path) -> None:
    started, pid = behind_a_shell(program, tmp_path)
    os.kill(started.pid, signal.SIGKILL)
    assert "signal 9" in started.ended_soon(10)
    wait_gone(pid)
    started.end()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell who listens")
def test_another_program_at_the_port_never_answers_for_it(
    program: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Child("model first", program, tmp_path, "probe", {})
    first.wait_ready(60)
    monkeypatch.setattr(child, "_free_port", lambda: first.port)
    second = Child("model second", program, tmp_path, "probe", {})
    try:
        with pytest.raises(Unavailable, match="ended before it was ready"):
            second.wait_ready(60)
    finally:
        second.end()
        first.end()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell who listens")
def test_who_listens_is_told_by_session() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert listeners.held_by(port, os.getpgid(0)) is True
        assert listeners.held_by(port, 1) is False
    assert listeners.held_by(port, os.getpgid(0)) is None


@pytest.mark.skipif(not fence.abi(), reason="this system has no Landlock")
def test_a_fenced_process_sees_who_listens_for_it(program: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from instar.serve.processes import fence\n"
        "from instar.serve.worker.commands.child import Child\n"
        f"here, own = Path({str(tmp_path)!r}), [sys.prefix, sys.base_prefix, *sys.path]\n"
        "fence.enclose([*map(Path, fence.SYSTEM), *map(Path, filter(None, own)), here], [here])\n"
        f"child = Child('model probe', {program!r}, here, 'probe', {{}})\n"
        "child.wait_ready(60); child.end(); print('ready')"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "ready\n", done.stderr


def test_an_answer_that_comes_byte_by_byte_ends_in_its_time() -> None:
    stop = threading.Event()

    def dribble(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while not stop.wait(0.02):
                try:
                    connection.sendall(b"a")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=dribble, args=(listening,))
        thread.start()
        try:
            with Line("127.0.0.1", listening.getsockname()[1], 0.3) as line, pytest.raises(TimeoutError):
                line.ask("GET", "/")
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize("value", ["1" + "0" * 400, "[" * 3000 + "]" * 3000], ids=["too large", "too deep"])
def test_scores_that_cannot_be_read_are_the_programs_failure(value: str) -> None:
    body = f'{{"outputs": [{{"name": "score", "datatype": "FP64", "shape": [1], "data": [{value}]}}]}}'.encode()
    with pytest.raises(StepFailed):
        answers.scores(answers.read(200, body, "1", "model probe"), 1, "model probe")


def test_an_error_of_endless_depth_is_said_as_text() -> None:
    with pytest.raises(StepFailed, match="status 500"):
        answers.read(500, b"[" * 100_000, "1", "model probe")
