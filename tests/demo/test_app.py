"""The server: what it keeps closed."""

from __future__ import annotations

import os

import httpx
import pytest

from adapt.demo.app import page, served
from adapt.demo.desk import Desk
from adapt.demo.request import Request
from adapt.plug import UserError

PUBLIC = {"classify", "segment", "detect"}


def test_all_handlers_are_private_but_the_three_with_typed_names(desk):
    visible = {fn.api_name for fn in page(desk).fns.values() if fn.api_visibility != "private"}
    assert visible <= PUBLIC and "classify" in visible


def test_no_two_handlers_of_an_event_wait_for_each_other(desk):
    """See `parts.TYPED`."""
    waiting = [target for fn in page(desk).fns.values() if fn.trigger_mode == "always_last" for target in fn.targets]
    assert waiting and len(waiting) == len(set(waiting))


def test_nothing_phones_home_and_the_footer_is_empty(desk, server):
    config = httpx.get(f"{server}config").json()
    assert config["analytics_enabled"] is False and config["footer_links"] == [] and config["max_file_size"] == 64 * 2**20
    for path in ("monitoring", "monitoring/summary", "gradio_api/runs", "gradio_api/monitoring"):
        assert httpx.get(f"{server}{path}").status_code >= 400, path
    strange = httpx.get(f"{server}config", headers={"Origin": "https://elsewhere.example"})
    assert "access-control-allow-origin" not in strange.headers


@pytest.mark.parametrize("path", ["/etc/passwd", "%2Fetc%2Fpasswd", "../../../../etc/passwd"])
def test_no_file_of_the_machine_is_served(server, path):
    assert httpx.get(f"{server}gradio_api/file={path}").status_code in (403, 404)


def test_who_has_no_password_sees_nothing_and_a_taken_port_is_told():
    before = os.environ.get("GRADIO_TEMP_DIR")
    with served(Desk([]), Request(port=0, people=(("anna", "a long one"),))) as address:
        folder = os.environ["GRADIO_TEMP_DIR"]
        assert httpx.get(f"{address}config").status_code == 401
        wrong = httpx.post(f"{address}login", data={"username": "anna", "password": "another"})
        assert wrong.status_code == 400
        with httpx.Client() as anna:
            anna.post(f"{address}login", data={"username": "anna", "password": "a long one"})
            assert anna.get(f"{address}config").status_code == 200
        port = int(address.rstrip("/").rpartition(":")[2])
        with pytest.raises(UserError, match=f"port: 127.0.0.1:{port} cannot be used"), served(Desk([]), Request(port=port)):
            pass
    assert os.environ.get("GRADIO_TEMP_DIR") == before and not os.path.exists(folder)
    with pytest.raises(UserError, match="cannot be used"), served(Desk([]), Request(host="203.0.113.1", port=0)):
        pass
