"""The backends that run models, one package each; see `panrt.engine.load.Backend`."""
