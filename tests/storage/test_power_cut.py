"""Power cuts: every write and sync of a real run is logged, and the disk is rebuilt as a cut may have left it.

`--power-cuts N` tries more states than CI does.
"""

import contextlib
import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from disk_log import CALLS, Disk, read_log

from trio_swarm.errors import StorageError
from trio_swarm.storage.schema import open_writer

TURNS = 14
WORKLOAD = Path(__file__).with_name("power_cut_workload.py")


def run_logged(folder, synchronous, seed):
    """Run the workload under strace; gives its operations."""
    store, log = folder / "swarm.db", folder.with_suffix(".log")
    folder.mkdir()
    traced = [sys.executable, WORKLOAD, store, str(TURNS), str(seed), synchronous]
    subprocess.run(
        ["strace", "-f", "-xx", "-s", "1000000", "-e", f"trace={CALLS}", "-o", log, *traced],
        check=True,
        capture_output=True,
        timeout=60,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    return read_log(log, folder)


def what_is_wrong(folder, files, acknowledged):
    """Open a rebuilt disk; None where it opens clean and holds every turn that was acknowledged, whole."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    path = folder / "swarm.db"
    if not path.exists() and acknowledged:
        return "the store is gone"
    try:
        with contextlib.closing(open_writer(path)) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
            rows = connection.execute("SELECT id, key, value FROM object JOIN pair ON object = number").fetchall()
    except (StorageError, sqlite3.Error) as error:
        return str(error)
    return verdict if verdict != "ok" else what_is_missing(rows, acknowledged)


def what_is_missing(rows, acknowledged):
    """None where each object holds its turns whole, and at least those that were acknowledged."""
    kept = {}
    for id_, key, value in rows:
        kept.setdefault(id_, {})[key] = msgspec.msgpack.decode(value)
    for id_, pairs in kept.items():
        number = pairs["left"]
        if number != pairs["right"] or pairs[f"page:{number % 7}"][0] != number:
            return f"{id_} holds half of a turn: {pairs.keys()} of {number}"
    for id_, number in acknowledged.items():
        if kept.get(id_, {"left": 0})["left"] < number:
            return f"turn {number} of {id_} was acknowledged and is not there"
    return None


def try_states(tmp_path, synchronous, count, seed):
    """Cut the power at so many moments of one run; gives what was wrong, by state."""
    operations = run_logged(tmp_path / synchronous, synchronous, seed)
    rng = random.Random(seed)
    moments = sorted(rng.choices(range(len(operations) + 1), k=count))
    disk, acknowledged, done, wrong = Disk(), {}, 0, []
    for state, moment in enumerate(moments):
        for operation in operations[done:moment]:
            disk.do(operation)
            if operation.what == "say":
                for line in operation.data.decode().split("\n"):
                    if line.startswith("l"):
                        id_, number = line.split()
                        acknowledged[id_] = int(number)
        done = moment
        folder = tmp_path / f"{synchronous}-{state}"
        trouble = what_is_wrong(folder, disk.after_cut(rng), acknowledged)
        if trouble is not None:
            wrong.append(f"cut after {moment} of {len(operations)}, in {folder.name}: {trouble}")
    return operations, wrong


@pytest.fixture
def cuts(request):
    return request.config.getoption("--power-cuts")


def test_no_power_cut_takes_an_acknowledged_turn(tmp_path, cuts, request):
    """At every moment, whatever part of what was not synced is lost or torn: the store opens clean and holds it all."""
    operations, wrong = try_states(tmp_path, "FULL", cuts, request.config.getoption("--seed"))
    said = sum(operation.what == "say" for operation in operations)
    assert said >= 8 * TURNS
    assert (
        sum(operation.what == "sync" and operation.name == "swarm.db" for operation in operations) >= 3
    )  # checkpoints
    assert [] == wrong


def test_the_simulation_sees_what_normal_loses(tmp_path, cuts, request):
    """With `synchronous=NORMAL` some cut takes an acknowledged turn: this test of the test must find one."""
    _, wrong = try_states(tmp_path, "NORMAL", cuts // 3, request.config.getoption("--seed"))
    assert any("was acknowledged and is not there" in trouble for trouble in wrong)
    assert not any("half of a turn" in trouble for trouble in wrong)
