"""One module a backend, each with `obstacle` and `open_session`; see `panrt.engine.load`."""
