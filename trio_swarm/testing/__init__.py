"""What tests of programs that use trio_swarm need, and its own: leak checks, scripted upstreams, slow stores."""

from trio_swarm.testing.leaks import LeakError, assert_no_leaks
from trio_swarm.testing.slow_storage import SlowStorage
from trio_swarm.testing.small_swarm import open_directory
from trio_swarm.testing.upstream import ScriptedUpstream

__all__ = ["LeakError", "ScriptedUpstream", "SlowStorage", "assert_no_leaks", "open_directory"]
