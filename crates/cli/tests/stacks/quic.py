"""A client over QUIC that nobody here wrote: aioquic, and docs/PROTOCOL.md. It has a certificate, a key and the
certificates that it trusts, and says what becomes of each thing that it tries, a line each."""

import asyncio
import contextlib
import struct
import sys
import time

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamDataReceived, StreamReset

what, target, certificate, key, authorities = sys.argv[1:]
ALPN = "countersign/1 client"
STATUS = ["ok", "denied", "malformed", "too-large", "unavailable", "busy"]
WHOAMI = b"\x01"


def say(name, *words):
    print(name, *words, flush=True)


def echo(body, length=None):
    return struct.pack(">BI", 2, len(body) if length is None else length) + body


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.got, self.ends = {}, {}
        self.over = asyncio.get_running_loop().create_future()
        Client.latest = self

    def quic_event_received(self, event):
        if isinstance(event, StreamDataReceived):
            self.got[event.stream_id] = self.got.get(event.stream_id, b"") + event.data
            if event.end_stream:
                self.end(event.stream_id, self.got[event.stream_id])
        elif isinstance(event, StreamReset):
            self.end(event.stream_id, event.error_code)
        elif isinstance(event, ConnectionTerminated) and not self.over.done():
            self.over.set_result(event)

    def end(self, stream, how):
        if stream in self.ends and not self.ends[stream].done():
            self.ends[stream].set_result(how)

    def begin(self, request, finish=True):
        """A stream with these bytes of a request, to be sent before it returns."""
        stream = self._quic.get_next_available_stream_id()
        self.ends[stream] = asyncio.get_running_loop().create_future()
        self._quic.send_stream_data(stream, request, finish)
        self.transmit()
        return stream

    async def ask(self, request, finish=True):
        """The status and the bytes of an answer, or the code of a reset."""
        return await self.answer(self.begin(request, finish))

    async def answer(self, stream):
        answer = await asyncio.wait_for(self.ends[stream], 60)
        if isinstance(answer, int):
            return "reset", hex(answer)
        status, length = struct.unpack(">BI", answer[:5])
        assert len(answer) == 5 + length, answer[:16]
        return STATUS[status], answer[5:]

    async def closed(self):
        event = await asyncio.wait_for(self.over, 60)
        # The transport names the frame that it complains of, if only as 0; an application does not.
        who = "application" if event.frame_type is None else "transport"
        return who, hex(event.error_code), event.reason_phrase


class Unread(Client):
    """Lets the member send 1000 bytes of each stream, and no more before it is told to."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.raise_limits, self._quic._write_stream_limits = self._quic._write_stream_limits, lambda **_: None

    def read(self):
        self._quic._write_stream_limits = self.raise_limits
        self._quic.send_ping(1)
        self.transmit()


def opened(alpn=ALPN, shown=True, protocol=Client):
    limits = {"max_stream_data": 1000} if protocol is Unread else {}
    configuration = QuicConfiguration(is_client=True, alpn_protocols=[alpn], **limits)
    configuration.load_verify_locations(authorities)
    if shown:
        configuration.load_cert_chain(certificate, key)
    host, port = target.rsplit(":", 1)
    return connect(host, int(port), configuration=configuration, create_protocol=protocol)


async def asking():
    async with opened() as client:
        for name, request, finish in [
            ("whoami", WHOAMI, True),
            ("open", WHOAMI, False),
            ("more", WHOAMI + b"more", True),
            ("echo", echo(b"hello"), True),
            ("nothing", echo(b""), True),
            ("too-large", echo(b"", 65537), False),
            ("kind", b"\x09", True),
            ("empty", b"", True),
            ("short", echo(b"ab", 3), True),
        ]:
            status, body = await client.ask(request, finish)
            say(name, status, body.decode())
        longest = bytes(range(256)) * 256
        status, body = await client.ask(echo(longest))
        say("longest", status, len(body), body == longest)
        many = await asyncio.gather(*(client.ask(echo(b"%d" % i)) for i in range(200)))
        say("many", sum(answer == ("ok", b"%d" % i) for i, answer in enumerate(many)))


async def slow():
    async with opened() as client:
        begun = time.monotonic()
        answers = await asyncio.gather(
            client.ask(echo(b"half", 8), finish=False), client.ask(WHOAMI, finish=False)
        )
        say("slow", *answers[0], round(time.monotonic() - begun))
        say("meanwhile", answers[1][0])
        say("after", (await client.ask(WHOAMI))[0])


async def unread():
    """One leaves its answer unread for too long, the other reads it in time."""
    longest = bytes(65536)
    async with opened(protocol=Unread) as never, opened(protocol=Unread) as late:
        begun = time.monotonic()
        answers = asyncio.gather(never.ask(echo(longest)), late.ask(echo(longest)))
        await asyncio.sleep(7)
        late.read()
        never_read, read_late = await answers
        say("never", *never_read, round(time.monotonic() - begun))
        say("late", read_late[0], read_late[1] == longest)


async def greedy():
    """Four connections hold all the requests that a principal may have under way; a fifth asks for one more."""
    async with contextlib.AsyncExitStack() as stack:
        *holders, other = [await stack.enter_async_context(opened()) for _ in range(5)]
        half = echo(b"", 1)
        held = [(holder, holder.begin(half, False)) for holder in holders for _ in range(64)]
        for _ in range(30):
            # All of them arrive first: a question of this one that is under way would take the place of one.
            await asyncio.sleep(0.2)
            held = [(at, at.begin(half, False) if at.ends[stream].done() else stream) for at, stream in held]
            if (answer := await other.ask(WHOAMI))[0] != "ok":
                break
        say("past", answer[0], answer[1].decode())
        holder, stream = held[0]
        holder._quic.send_stream_data(stream, b"x", True)
        holder.transmit()
        say("held", (await holder.answer(stream))[0])
        # The place is free once the member knows that its answer has arrived.
        for _ in range(30):
            if (answer := await other.ask(WHOAMI))[0] == "ok":
                break
            await asyncio.sleep(0.1)
        say("after", answer[0])


async def overtaken():
    """Sends the rest of a request once it is told to."""
    async with opened() as client:
        stream = client.begin(echo(b"", 2), False)
        await client.ask(WHOAMI)
        say("watching")
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        client._quic.send_stream_data(stream, b"ab", True)
        client.transmit()
        say("answer", (await client.answer(stream))[0])


async def stopping():
    """Completes a request when the member has long been stopping, and does not read the answer."""
    async with opened(protocol=Unread) as client:
        await client.ask(WHOAMI)
        stream = client.begin(echo(b"", 65536), False)
        await asyncio.sleep(0.5)
        say("watching")
        await asyncio.sleep(8)
        client._quic.send_stream_data(stream, bytes(65536), True)
        client.transmit()
        say("cut", *await client.closed())


async def refused(name, **more):
    """A client that is refused may learn so while it connects, or right after."""
    try:
        async with opened(**more) as client:
            await client.closed()
    except ConnectionError:
        pass
    say(name, *await Client.latest.closed())


async def watching():
    """Stays until the connection is closed, then tries again on a new one."""
    async with opened() as client:
        await client.ask(WHOAMI)
        say("watching")
        say("cut", *await client.closed())
    await refused("again")


async def strangers():
    await refused("bare", shown=False)
    await refused("h3", alpn="h3")


asyncio.run(
    {
        "ask": asking,
        "slow": slow,
        "unread": unread,
        "greedy": greedy,
        "overtaken": overtaken,
        "stopping": stopping,
        "watch": watching,
        "strangers": strangers,
    }[what]()
)
