"""What `deploy/` holds: read as systemd and a container engine read it, and held against the program."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from trio_swarm.cli.checks import descriptors_needed
from trio_swarm.cli.serve import serve
from trio_swarm.edge.listeners import BACKLOG, parse_bind
from trio_swarm.health.budget import make_budget
from trio_swarm.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
HADOLINT = Path(sys.executable).with_name("hadolint")


def read_unit(name):
    """A unit's sections, each a list of keys and values; a key may come more than once."""
    sections, current = {}, None
    for line in (DEPLOY / name).read_text().splitlines():
        if line.startswith(("#", ";")) or not line.strip():
            continue
        if found := re.fullmatch(r"\[(\w+)\]", line):
            current = sections.setdefault(found[1], [])
            continue
        found = re.fullmatch(r"(\w+)=(.*)", line)
        assert found, f"not a line of a unit: {line!r}"
        current.append((found[1], found[2]))
    return sections


@pytest.fixture
def service():
    """The service's own section, without keys that come twice."""
    pairs = read_unit("trio-swarm.service")["Service"]
    assert len(pairs) == len(dict(pairs))
    return dict(pairs)


def check_command_line(words):
    """Is this what `serve` takes? Returns the parameters it makes of it."""
    assert "trio-swarm" == Path(words[0]).name
    assert "serve" == words[1]
    return serve.make_context("serve", [word.replace("%S", "/var/lib") for word in words[2:]]).params


def test_the_units_command_line(service):
    """The command line is one that `serve` takes, its store is in the folder that the unit makes; SIGHUP reloads."""
    given = check_command_line(shlex.split(service["ExecStart"]))
    assert f"/var/lib/{service['StateDirectory']}" == str(Path(given["store"]).parent)
    assert "/bin/kill -HUP $MAINPID" == service["ExecReload"]
    assert "notify" == service["Type"]


def test_the_units_numbers_are_enough(service):
    """Descriptors, memory and time suffice for the defaults; a mistake (exit code 2) is not tried again for ever."""
    defaults = Settings()
    assert int(service["LimitNOFILE"]) >= descriptors_needed(defaults)
    number, unit = int(service["MemoryMax"][:-1]), service["MemoryMax"][-1]
    budget = make_budget(defaults)
    assert number * {"M": 2**20, "G": 2**30}[unit] >= budget.total + budget.kernel_total
    assert int(service["TimeoutStopSec"]) > 2 * defaults.liveness.shutdown_s
    assert "2" == service["RestartPreventExitStatus"]
    assert int(service["WatchdogSec"]) >= 10


def test_the_unit_gives_away_little(service):
    """No privileges, its own user, a read-only system, its own folders, no address families but those it speaks."""
    hardened = {
        "DynamicUser": "yes", "NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "ProtectSystem": "strict",
        "ProtectHome": "yes", "PrivateTmp": "yes", "PrivateDevices": "yes", "RestrictSUIDSGID": "yes",
        "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX", "SystemCallFilter": "@system-service",
        "RuntimeDirectory": "trio-swarm", "RuntimeDirectoryMode": "0700", "StateDirectory": "trio-swarm",
    }  # fmt: skip
    assert hardened == {key: service.get(key) for key in hardened}


def test_the_socket():
    """It listens where the service would by itself, as patiently, and the service needs it."""
    socket = dict(read_unit("trio-swarm.socket")["Socket"])
    assert parse_bind(Settings().bind) == parse_bind(socket["ListenStream"])
    assert BACKLOG == int(socket["Backlog"])
    unit = read_unit("trio-swarm.service")
    assert ("Requires", "trio-swarm.socket") in unit["Unit"]
    assert ("Also", "trio-swarm.socket") in unit["Install"]


def instructions(text):
    """The container file's instructions, with continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
HEALTHCHECK = re.search(r"HEALTHCHECK .*?\\\n\s*CMD (.*)", CONTAINERFILE)[1]


def find_faults(text):
    """What is wrong with a container file, by our own rules."""
    found = instructions(text)
    last = found[max(index for index, (name, _) in enumerate(found) if name == "FROM") :]
    final = dict(last)
    faults = []
    if not re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", final.get("USER", "")):
        faults.append("USER is no number above 0")
    faults += [f"{name} starts a shell" for name in ("CMD", "ENTRYPOINT") if not final.get(name, "").startswith("[")]
    if not re.search(r'CMD \["', final.get("HEALTHCHECK", "")):
        faults.append("HEALTHCHECK is missing, or starts a shell")
    if final.get("STOPSIGNAL") != "SIGTERM":
        faults.append("STOPSIGNAL is not what ends the service well")
    faults += [f"{where} is no fixed version" for name, where in found if name == "FROM" and ":" not in where]
    faults += ["COPY takes everything" for name, what in found if name in {"COPY", "ADD"} and what.startswith(". ")]
    return faults


def test_the_container_file():
    """Nobody special runs it, no shell stands between it and its signals, and its command line is one of ours."""
    assert [] == find_faults(CONTAINERFILE)
    final = dict(instructions(CONTAINERFILE))
    given = check_command_line([*json.loads(final["ENTRYPOINT"]), *json.loads(final["CMD"])])
    assert ("0.0.0.0", int(final["EXPOSE"])) == parse_bind(given["bind"])
    assert given["open_"]
    assert final["VOLUME"] == str(Path(given["store"]).parent)


@pytest.mark.parametrize(
    ("right", "wrong", "fault"),
    [
        ("USER 65532:65532", "USER root", "USER"),
        ("USER 65532:65532\n", "", "USER"),
        ('CMD ["serve"', 'CMD serve "', "CMD starts a shell"),
        ('ENTRYPOINT ["trio-swarm"]', "ENTRYPOINT trio-swarm", "ENTRYPOINT starts a shell"),
        (f"CMD {HEALTHCHECK}", "CMD python -c 0", "HEALTHCHECK"),
        ("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL", "STOPSIGNAL"),
        ("python:3.13-slim AS build", "python AS build", "no fixed version"),
        ("COPY pyproject.toml README.md ./", "COPY . .", "everything"),
    ],
)
def test_the_rules_see_what_is_wrong(right, wrong, fault):
    """Each rule, on the file with one thing changed."""
    assert right in CONTAINERFILE
    faults = find_faults(CONTAINERFILE.replace(right, wrong, 1))
    assert [True] == [fault in each for each in faults], faults


def lint(path):
    return subprocess.run([HADOLINT, "--no-color", path], capture_output=True, text=True, check=False)


def test_the_linter_finds_nothing(tmp_path):
    """And it does look: it finds what is planted."""
    done = lint(DEPLOY / "Containerfile")
    assert (0, "") == (done.returncode, done.stdout)
    planted = tmp_path / "Containerfile"
    planted.write_text(CONTAINERFILE.replace("USER 65532:65532", "RUN apt-get install curl"))
    assert "DL3008" in lint(planted).stdout


def test_the_health_check(tmp_path):
    """The container's own command, against a service: 0 while it serves, something else when it does not."""
    command = [sys.executable, "-m", "trio_swarm.cli", "serve", "--bind", "127.0.0.1:0", "--store", tmp_path / "s.db"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = re.search(r":(\d+)$", process.stdout.readline())[1]
            probe = [sys.executable, *(word.replace(":8000", f":{port}") for word in json.loads(HEALTHCHECK)[1:])]
            assert 0 == subprocess.run(probe, check=False).returncode
        finally:
            process.terminate()
    assert 0 == process.returncode
    assert 0 != subprocess.run(probe, capture_output=True, check=False).returncode
