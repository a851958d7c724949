"""The durable objects: what authors write, and how it lives.

durable.py      what authors write                  methods.py    which methods can be called
directory.py    (kind, id) -> live object           reference.py  what others use to reach one
host.py         one object through all its lives    incarnation.py one life: its nursery and its turns
mailbox.py      what waits for a turn               items.py      the kinds of turns
turn.py         whose turn it is; call cycles       gate.py       nothing leaves before it is safe
store.py        keys and values, and the overlay    timers.py     timers, and the handle of tasks
"""
