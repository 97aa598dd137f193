"""Settings of every test, and of the commands that tests start."""

import os

# Micro models gain nothing from a second thread, and on a busy machine threads wait for each other most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
