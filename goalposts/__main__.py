"""``python -m goalposts``."""

from goalposts.cli import main

if __name__ == "__main__":
    main()
