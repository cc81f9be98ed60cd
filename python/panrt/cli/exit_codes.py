"""Exit codes that commands share; 128 + N is the code of a command that signal N ended."""

USER_ERROR = 2  # invalid options or input
