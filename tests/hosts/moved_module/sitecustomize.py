"""On the path of a process, our connections do not find Hypercorn's protocols there; Hypercorn itself does."""

import builtins

find = builtins.__import__


def import_without(name, names=None, *rest, **named):
    if name.startswith("hypercorn.protocol") and (names or {}).get("__name__", "").startswith("trio_swarm."):
        raise ImportError(f"no module named {name}")
    return find(name, names, *rest, **named)


builtins.__import__ = import_without
