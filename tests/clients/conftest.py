"""Fixtures for real clients against a real server over TLS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from client_support import FOUND, Run, ScriptedNode

from apiserver_support import ServerThread
from support import IN_CI


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    thread = ServerThread(tmp_path_factory.mktemp("plane"), node=ScriptedNode()).start()
    yield thread
    thread.stop()


@pytest.fixture(params=FOUND or [None], ids=str)
def kubectl(request: pytest.FixtureRequest, plane: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Each kubectl in turn; its discovery cache is kept over a session, as a user's would be."""
    if request.param is None:
        reason = "needs kubectl"
        pytest.fail(reason) if IN_CI else pytest.skip(reason)
    home = tmp_path_factory.getbasetemp() / f"home-{request.param.minor}"
    home.mkdir(exist_ok=True)
    run = Run(request.param, plane.kubeconfig, home)
    run("create", "namespace", run.namespace)
    return run
