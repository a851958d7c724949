"""A soak as a picture: what the service held, each second."""

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

MIB = 1024 * 1024
PANELS = (
    ("tasks", ("tasks",), 1),
    ("descriptors", ("descriptors",), 1),
    ("connections and stream clients", ("connections", "clients"), 1),
    ("objects and idle journals", ("objects", "journals"), 1),
    ("objects of Python's collector", ("gc_objects",), 1),
    ("blocks of Python's allocator", ("blocks",), 1),
    ("resident memory, MiB", ("rss",), MIB),
    ("visits a second", ("visits",), 1),
)


def draw(samples, verdicts, title, path):
    """Write the picture; what is left of the line is the first minute, which is not judged."""
    figure, grid = plt.subplots(4, 2, figsize=(13, 13), sharex=True)
    minutes = [sample["second"] / 60 for sample in samples]
    for axes, (name, series, unit) in zip(grid.flat, PANELS, strict=True):
        for each in series:
            values = [sample[each] / unit for sample in samples]
            if each == "visits":
                values = [after - before for before, after in zip([0, *values], values, strict=False)]
            verdict = verdicts.get(each)
            label = each if verdict is None else f"{each}: {verdict.slope:+.1%} an hour"
            axes.plot(minutes, values, linewidth=0.7, label=label)
        axes.axvline(1, color="grey", linewidth=0.7)
        axes.set_title(name, fontsize=10)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8, loc="lower right")
    for axes in grid[-1]:
        axes.set_xlabel("minutes")
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
