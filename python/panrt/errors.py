"""The root of what PanRT raises for reasons that its user can do something about."""


class PanrtError(Exception):
    """Something given to PanRT does not do; the message says what was found, what was expected and what helps.

    Classes below it also keep a built-in base (ValueError, RuntimeError, ...), so that either can be caught.
    """
