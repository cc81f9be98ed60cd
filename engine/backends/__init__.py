"""One module a backend, each with `obstacle(path)` and `open_session(path, *, threads)`; see `panrt.engine.load`."""
