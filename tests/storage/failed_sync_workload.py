"""A process that enters numbers into an object until its disk fails, says what it was told, and is killed.

python failed_sync_workload.py STORE [on]: with `on` it enters some more behind the failure, until those go well.
"""

import logging
import os
import signal
import sys

import structlog
import trio

from trio_swarm import DurableObject, open_swarm
from trio_swarm.errors import ObjectError, StorageError
from trio_swarm.settings import ObjectSettings, Settings

MOST = 40  # entries: the disk has failed long before
MORE = 3  # behind the failure


class Book(DurableObject):
    durable = frozenset({"*"})

    async def enter(self, number):
        self.storage.put(f"{number:02}", "x" * 20_000)  # some pages, so that a later commit is not as long as this one
        self.publish("entered", number)

    async def look(self):
        return [int(key) for key in await self.storage.list()]


def say(*words):
    os.write(1, f"{' '.join(map(str, words))}\n".encode())


async def enter(book, number):
    try:
        await book.enter(number)
    except StorageError as error:
        say("uncertain" if error.uncertain else "failed", number)
        return False
    except ObjectError:
        say("restarted", number)
        return False
    say("entered", number)
    return True


async def main(path, *, goes_on):
    settings = Settings(store=path, objects=ObjectSettings(backoff_initial_s=0.01))
    async with open_swarm(objects=[Book], settings=settings) as swarm:
        book = swarm.get(Book, "a")
        number = 1
        while number < MOST and await enter(book, number):
            number += 1
        say("held", *await book.look())
        say("seen", *[event.data.decode() for event in (await book.history(["entered"], limit=MOST))[0]])
        went_well = 0 if goes_on else MORE
        while went_well < MORE and number < MOST:
            number += 1
            went_well += await enter(book, number)
        os.kill(os.getpid(), signal.SIGKILL)


# Standard output is for what was told.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
trio.run(lambda: main(sys.argv[1], goes_on=sys.argv[2:] == ["on"]))
