import asyncio

import pytest
from ports import free_port
from trackers import get

from common.admin import Admin
from common.metrics import Metrics


@pytest.mark.parametrize(("ok", "status"), [(True, 200), (False, 503)])
def test_health_is_the_status(ok, status):
    port = free_port()

    async def ask():
        admin = Admin(Metrics(), lambda: {"ok": ok, "shard": "one"})
        await admin.start("127.0.0.1", port)
        answer = await asyncio.to_thread(get, f"127.0.0.1:{port}", "/health")
        await admin.stop()
        return answer

    assert asyncio.run(ask()) == (status, f'{{"ok": {str(ok).lower()}, "shard": "one"}}')


def test_an_admin_that_never_started_may_stop():
    asyncio.run(Admin(Metrics(), dict).stop())
