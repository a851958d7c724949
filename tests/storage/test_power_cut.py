"""Power cuts: every write and sync of a real run is logged, and the disk is rebuilt as a cut may have left it.

`--power-cuts N` tries more states than CI does.
"""

import contextlib
import os
import random
import re
import sqlite3
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import attrs
import pytest
from disk_log import CALLS, Disk, read_log
from power_cut_workload import KEEP
from stored_ledgers import ALWAYS, read_ledgers, what_is_wrong

from trio_swarm.errors import StorageError
from trio_swarm.journal.event import EventId
from trio_swarm.storage.schema import open_writer

TURNS = 14
SAID = re.compile(r"^(l\d+) (\w+) (\d+)(?: (\d+-\d+))?$", re.MULTILINE)
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


@attrs.define
class LetOut:
    """What the run had let out by a moment: answers to its callers, events to its readers."""

    answered: dict[str, int] = attrs.Factory(dict)
    seen: dict[str, list[tuple[str, int, EventId]]] = attrs.Factory(lambda: defaultdict(list))

    def hear(self, said):
        # Python's own children, which look for libraries, speak too.
        for id_, what, number, event_id in SAID.findall(said.decode()):
            if what == "answer":
                self.answered[id_] = int(number)
            else:
                self.seen[id_].append((what, int(number), EventId.parse(event_id)))

    def __bool__(self):
        return bool(self.answered or self.seen)


def what_a_cut_did(folder, files, let_out):
    """Open a rebuilt disk; None where it opens clean and holds every turn that was let out, and each one whole."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    path = folder / "swarm.db"
    if not path.exists() and let_out:
        return "the store is gone"
    try:
        with contextlib.closing(open_writer(path)) as connection:
            return what_is_wrong(connection, KEEP) or what_is_missing(read_ledgers(connection), let_out)
    except (StorageError, sqlite3.Error) as error:
        return str(error)


def what_is_missing(ledgers, let_out):
    """None where at least those turns are there that callers were answered, and all events that readers have seen."""
    for id_, number in let_out.answered.items():
        if id_ not in ledgers or ledgers[id_].left < number:
            return f"turn {number} of {id_} was acknowledged and is not there"
    for id_, events in let_out.seen.items():
        if id_ not in ledgers:
            return f"{id_} was seen and is not there"
        stored = ledgers[id_]
        kept = {topic: set(events) for topic, events in stored.events.items()}
        for topic, number, event_id in events:
            _, mark = stored.topics.get(topic, (0, (0, 0)))
            if event_id > mark and (event_id, number) not in kept.get(topic, ()):
                return f"event {event_id} of {id_}, {topic} {number}, was seen and is not there"
    return None


def try_states(tmp_path, synchronous, count, seed):
    """Cut the power at so many moments of one run; gives its operations, what it let out, and what was wrong."""
    operations = run_logged(tmp_path / synchronous, synchronous, seed)
    rng = random.Random(seed)
    moments = sorted(rng.choices(range(len(operations) + 1), k=count))
    disk, let_out, done, wrong = Disk(), LetOut(), 0, []
    for state, moment in enumerate(moments):
        for operation in operations[done:moment]:
            disk.do(operation)
            if operation.what == "say":
                let_out.hear(operation.data)
        done = moment
        folder = tmp_path / f"{synchronous}-{state}"
        trouble = what_a_cut_did(folder, disk.after_cut(rng), let_out)
        if trouble is not None:
            wrong.append(f"cut after {moment} of {len(operations)}, in {folder.name}: {trouble}")
    return operations, let_out, wrong


@pytest.fixture
def cuts(request):
    return request.config.getoption("--power-cuts")


def test_no_power_cut_takes_an_acknowledged_turn(tmp_path, cuts, request):
    """At every moment, whatever part of what was not synced is lost or torn: the store opens clean and holds all that
    was let out, answers and events; and of each turn all or nothing: its values, its events, its alarms.
    """
    operations, let_out, wrong = try_states(tmp_path, "FULL", cuts, request.config.getoption("--seed"))
    said = sum(operation.what == "say" for operation in operations)
    assert said >= 8 * TURNS
    assert (
        sum(operation.what == "sync" and operation.name == "swarm.db" for operation in operations) >= 3
    )  # checkpoints
    assert [] == wrong
    assert set(ALWAYS) == {topic for events in let_out.seen.values() for topic, _, _ in events}


def test_the_simulation_sees_what_normal_loses(tmp_path, cuts, request):
    """With `synchronous=NORMAL` some cut takes an acknowledged turn: this test of the test must find one."""
    _, _, wrong = try_states(tmp_path, "NORMAL", cuts // 3, request.config.getoption("--seed"))
    assert any("was acknowledged and is not there" in trouble for trouble in wrong)
    assert not any("half of a turn" in trouble for trouble in wrong)
