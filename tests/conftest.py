"""How the tests are dealt out when `-n auto` is asked for."""

import os


def pytest_xdist_auto_num_workers(config):
    """Return one worker more than there are cores: a test that drives a browser or another process mostly waits."""
    return (os.cpu_count() or 1) + 1
