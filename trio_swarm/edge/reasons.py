"""The words with which a client is cut off: they are counted in statistics, and in metrics they are labels.

docs/deadlines.md says what each means; a test compares.
"""

from typing import Final

# A client that is owed bytes (headway.py).
STALLED: Final = "stalled"
SLOW_READER: Final = "slow reader"
UNACKNOWLEDGED: Final = "unacknowledged"  # the kernel's own limit (listeners.py): nothing came back at all

# A client that should say something (connection.py).
SLOW_HANDSHAKE: Final = "slow handshake"
SLOW_HEAD: Final = "slow head"
SLOW_BODY: Final = "slow body"
SLOW_MESSAGE: Final = "slow message"
IDLE: Final = "idle"
UNANSWERED: Final = "unanswered goodbye"
SILENT: Final = "silent"  # the edge's: no pong (liveness.py)

# No fault of its slowness.
GONE: Final = "the peer is gone"
STUCK: Final = "the application did not end"
