"""`python -m panrt`, the same as `panrt`."""

from panrt.cli import main

if __name__ == "__main__":
    main()
