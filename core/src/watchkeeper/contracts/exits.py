"""What the exit code of a program that ends says to whoever started it, be it a Job or a shell.

Any other code means what ``TRY_AGAIN`` does: the process broke, or was killed.
"""

from typing import Final

DONE: Final = 0
TRY_AGAIN: Final = 1  # a database or the registry did not answer
GIVE_UP: Final = 2  # the order, the settings or the data must change first
