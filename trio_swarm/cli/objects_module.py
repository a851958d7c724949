"""`--objects MODULE`: an author's module, imported from the working directory too, and the classes that it defines."""

import importlib
import os
import sys
import sysconfig
import traceback
from pathlib import Path

import trio_swarm
from trio_swarm.errors import SettingsError
from trio_swarm.objects.durable import DurableObject


def load_objects(module: str) -> list[type[DurableObject]]:
    """Import a module, from the working directory too, and find the classes that it defines.

    Raises:
        SettingsError: it is not the name of a module, cannot be imported, or has none; it says where, or what to write.
    """
    where = f"--objects {module}".rstrip()
    _check_name(module, where)
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module and not module.startswith(f"{error.name}."):
            raise SettingsError(where, f"imports {error.name}, and there is no such module") from error
        raise SettingsError(where, "there is no such module, here or on Python's path") from error
    except Exception as error:
        raise SettingsError(where, f"{type(error).__name__} at {_place(error)}: {_words(error)}") from error
    found = [
        value
        for value in vars(loaded).values()
        if isinstance(value, type)
        and issubclass(value, DurableObject)
        and value.__module__ == loaded.__name__
        and not value.__name__.startswith("_")  # a base for others, and not for clients
    ]
    if not found:
        raise SettingsError(where, "defines no subclass of DurableObject with a public name")
    return found


def _check_name(module: str, where: str) -> None:
    """A file, a path, or a class of a module is a likely thing to write, and not what Python imports.

    Raises:
        SettingsError: with what to write.
    """
    parts = module.split(".")
    if all(part.isidentifier() for part in parts) and not module.endswith(".py"):
        return
    name, colon, _ = module.partition(":")
    meant = name.lstrip("./").removesuffix(".py").strip("/").replace("/", ".")
    if not all(part.isidentifier() for part in meant.split(".")):
        raise SettingsError(where, "give the name of a Python module, such as `--objects game` for game.py")
    reason = ", whose classes are all served" if colon else ""
    raise SettingsError(where, f"give the name of a module{reason}: write `--objects {meant}`")


def _place(error: Exception) -> str:
    """Where in the user's own files it went wrong: the libraries that these called are not where to look."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    paths = sysconfig.get_paths()
    places = (
        *(paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        Path(trio_swarm.__file__).parent,
    )
    libraries = tuple(f"{place}{os.sep}" for place in places)
    own = [frame for frame in frames if not frame.filename.startswith(("<", *libraries))]
    place = (own or frames)[-1]
    return f"{place.filename}:{place.lineno}"


def _words(error: Exception) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error)
