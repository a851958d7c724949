"""On the path of a process, Hypercorn is another release there."""

import importlib.metadata

found = importlib.metadata.version
importlib.metadata.version = lambda name: "0.19.1" if name == "hypercorn" else found(name)
