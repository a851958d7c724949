"""The edge: bytes leave. Routes, streams, and a Hypercorn connection that bad peers cannot hold."""
