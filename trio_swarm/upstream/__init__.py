"""Bytes come in: supervised feeds, the languages they speak, and captures of them.

One connection, alive or found dead, is `websocket.py`; text becomes events in `protocols/`; `restarts.py` and
`sequence.py` decide about failures and gaps; `feed.py` is the feed that keeps itself up and delivers. `capture.py` is
the file format of recorded sessions, `record.py` writes one, `replay.py` and `serving.py` play it.
"""
