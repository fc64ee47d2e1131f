"""Who may send what, and as whom, over a WebSocket: the suite of POST once more."""

import pytest

from tests.messages.conftest import Sender
from tests.messages.sockets import SocketSender
from tests.messages.test_access import *  # noqa: F403

# The id is the socket's own; where the handshake fails, or there is nothing to hear, no socket is opened.
del test_what_a_handler_is_told, test_a_namespace_that_cannot_be_told_runs_nothing  # noqa: F821
del test_a_handler_runs_in_its_senders_tenant  # noqa: F821


@pytest.fixture
def sender() -> Sender:
    return SocketSender()
