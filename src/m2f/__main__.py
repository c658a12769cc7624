"""``python -m m2f`` is the `m2f` command."""

from m2f.cli import main

main()
