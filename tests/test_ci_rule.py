"""Under `CI=true` a skip is a failure."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RULE = Path(__file__).parents[1] / "conftest.py"


@pytest.mark.parametrize("workers", [(), ("-p", "xdist", "-n", "2")], ids=["here", "two workers"])
@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_a_skip_fails_the_build(tmp_path, ci, code, workers):
    """A skipped test or file passes on a desk, and fails where CI is true, with its reason; an expected failure is no
    skip.
    """
    shutil.copy(RULE, tmp_path / "conftest.py")
    (tmp_path / "test_one.py").write_text(
        "import pytest\n"
        "def test_skipped(): pytest.skip('no browser here')\n"
        "@pytest.mark.xfail\n"
        "def test_expected(): assert False\n"
    )
    (tmp_path / "test_two.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            *workers,
            "-c",
            "/dev/null",
            f"--rootdir={tmp_path}",
            str(tmp_path),
        ],
        env={**os.environ, "CI": ci, "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout
    assert ("no browser here" in done.stdout) == (ci == "true")
    assert ("no_such_module" in done.stdout) == (ci == "true")
    assert done.stdout.count("::test_") == (1 if ci else 0)
