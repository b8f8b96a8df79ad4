"""``python -m goalposts``."""

from goalposts._cli.main import main

if __name__ == "__main__":
    main()
