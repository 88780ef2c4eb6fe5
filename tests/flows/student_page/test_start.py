"""`magicseg serve-student`: what is refused before anything is served."""

import socket
import subprocess
import sys

import pytest

from flows.page_addresses import PageAddress
from flows.student_page.opening import open_page
from runs import write_run
from storage.errors import InputError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("place") / "run")


def test_without_the_extra_it_is_named(tmp_path):
    code = (
        "import sys; sys.modules['gradio'] = None\nfrom flows.__main__ import main\n"
        "sys.argv = ['magicseg', 'serve-student', '--run', 'none']\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "run `pip install 'magicseg-engine[app]'`" in done.stderr


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (("--run", "none"), "none"),
        (("--run", "RUN", "--compare", "none"), "none"),
        (("--run", "RUN", "--compare", "RUN"), "is the run itself"),
        (("--run", "RUN", "--profile", "sd15"), "name the student's profile with --profile"),
        (("--run", "RUN", "--set", "average=all"), "changes nothing in a picture"),
        (("--run", "RUN", "--host", "203.0.113.7"), "give another --"),
        (("--run", "RUN", "--host", "no.such.host.invalid"), "is no interface of this machine"),
        (("--run", "RUN", "--port", "70000"), "70000"),
        ((), "--run"),
    ],
)
def test_what_does_not_fit_is_refused(type_line, run, line, reason):
    line = ("--port", "0", *line) if "--port" not in line else line
    code, said = type_line("serve-student", *(str(run) if part == "RUN" else part for part in line))
    assert (code, reason in " ".join(said.split())) == (2, True), said


def test_a_port_that_is_taken_is_told(type_line, run):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, said = type_line("serve-student", "--run", run, "--port", port)
    assert (code, f"port {port} of 127.0.0.1 cannot be taken" in said) == (2, True), said
    assert "or 0 for a free one" in " ".join(said.split())


def test_another_host_is_warned_of(type_line):
    code, said = type_line("serve-student", "--run", "none", "--host", "0.0.0.0", "--port", 0)  # noqa: S104
    assert (code, "warning: 0.0.0.0 is not this machine alone" in said) == (2, True), said
    assert "there is no password" in " ".join(said.split())


def test_a_closed_set_run_has_no_page(run, tmp_path):
    (tmp_path / "closed_set.json").write_text("{}")
    with pytest.raises(InputError, match="is a closed-set run, which has no threshold to move"):
        open_page(run, tmp_path, "miniature", {}, tmp_path)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *(("127.0.0.1", True), ("127.0.0.9", True), ("localhost", True), ("::1", True)),
        *(("0.0.0.0", False), ("::", False), ("192.0.2.1", False), ("example.org", False)),  # noqa: S104
    ],
)
def test_loopback_is_this_machine_alone(host, loopback):
    assert PageAddress(host, 1).is_loopback == loopback
    assert bool(PageAddress(host, 1).names) == loopback
