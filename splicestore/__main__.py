"""``python -m splicestore``."""

from splicestore.cli import main

main()
