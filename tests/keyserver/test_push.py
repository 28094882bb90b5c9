import asyncio

from keyserver.messages import PushEvent
from keyserver.push import BACKLOG, STREAMS, Hub


def test_a_stream_gets_its_own_events_and_everybodys():
    async def scenario():
        hub = Hub()
        one, other = hub.open("one"), hub.open("other")
        hub.deliver(PushEvent(1, "bundle"), "")
        hub.deliver(PushEvent(2, "leases"), "one")
        assert [await one.get(1), await one.get(1), await one.get(0.01)] == [
            PushEvent(1, "bundle"),
            PushEvent(2, "leases"),
            None,
        ]
        assert [await other.get(1), await other.get(0.01)] == [PushEvent(1, "bundle"), None]
        assert hub.newest("one").number == 2
        assert hub.newest("other").number == 1
        hub.leave(one)
        assert hub.connected == {"other"}

    asyncio.run(scenario())


def test_a_ban_is_the_last_event():
    async def scenario():
        hub = Hub()
        stream = hub.open("one")
        hub.deliver(PushEvent(3, "banned"), "one")
        assert await stream.get(1) == PushEvent(3, "banned")
        assert stream.closed
        assert await stream.get(1) is None

    asyncio.run(scenario())


def test_who_reads_slowly_loses_the_oldest():
    async def scenario():
        hub = Hub()
        stream = hub.open("one")
        for number in range(BACKLOG + 5):
            hub.deliver(PushEvent(number, "leases"), "one")
        event = await stream.get(1)
        assert event is not None
        assert event.number == 5

    asyncio.run(scenario())


def test_a_machine_has_few_streams():
    async def scenario():
        hub = Hub()
        streams = [hub.open("one") for _ in range(STREAMS + 2)]
        assert [stream.closed for stream in streams] == [True, True] + [False] * STREAMS
        for stream in streams:
            hub.leave(stream)
        assert hub.connected == frozenset()

    asyncio.run(scenario())


def test_closing_wakes_who_waits():
    async def scenario():
        hub = Hub()
        stream = hub.open("one")
        waiting = asyncio.create_task(stream.get(10))
        await asyncio.sleep(0)
        hub.close()
        assert await waiting is None

    asyncio.run(scenario())


def test_numbers_go_on_after_a_restart(company):
    company.change(lambda change: change.announce("leases", "one"))
    company.change(lambda change: change.announce("bundle"))
    hub = Hub()
    with company.store.read() as rows:
        hub.resume(rows.policies.pushes())
    assert hub.newest("one").kind == "bundle"
    assert hub.newest("one").number == hub.newest("other").number
