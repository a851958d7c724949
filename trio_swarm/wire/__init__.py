"""What goes over the wire: server-sent events, WebSocket frames, JSON messages, names. Pure."""
