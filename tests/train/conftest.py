import signal

import pytest
import torch

from tests.train.easy import write_easy


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Sixteen easy scenes as files; not to be changed."""
    return write_easy(tmp_path_factory.mktemp("easy"), range(1000, 1016))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """One core: the steps are so small that two would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def ctrl_c():
    """Makes this process listen to SIGINT, which one in the background does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
