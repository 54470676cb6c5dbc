#!/usr/bin/env python3
"""What a release build keeps of its memory after a peak, and what idle connections take.

    cargo build --release && python3 benches/memory.py target/release/segment-gateway

Five peaks, each on a process of its own: 300 readers of distinct answers of 3.9 MiB at once, the same
by readers that take nothing for a while, 160,000 distinct answers of 8 KiB, which replace what is stored
four times, and 12,000 connections that send half a head and are closed, or stay. Resident memory is read from /proc twenty seconds after the peak. It should be at most 1.3 times
what is stored, plus 30 MiB, except for connections that stay. Needs 13,000 open files (ulimit -n).
"""

import asyncio
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile

READERS, BODY = 300, int(3.9 * 1024 * 1024)
SMALL, KEYS, READING = 8 * 1024, 160_000, 64
CONNECTIONS = 12_000
MIB = 1024 * 1024


def free():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


async def api(reader, writer):
    """Answers each request with bytes of its own."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1]
            seed = (path * (4096 // len(path) + 1))[:4096]
            size = SMALL if path.startswith(b"/users/small-") else BODY
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                b"x-ratelimit-consumed: 1\r\nx-ratelimit-remaining: 199\r\n"
                b"content-length: %d\r\n\r\n" % size
            )
            for at in range(0, size, 65536):
                writer.write((seed * 16)[: min(65536, size - at)])
                await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def status(pid):
    text = open(f"/proc/{pid}/status").read()
    return {k: int(re.search(k + r":\s+(\d+)", text)[1]) / 1024 for k in ("VmRSS", "VmHWM")}


async def ask(port, path, token, wait=0.0):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=65536)
    writer.write(
        f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
        "connection: close\r\n\r\n".encode()
    )
    await asyncio.sleep(wait)
    first, size = await reader.read(65536), 0
    code, size = first.split(b" ", 2)[1:2], len(first)
    while piece := await reader.read(65536):
        size += len(piece)
    writer.close()
    return int(code[0]) if code else 0, size


async def metric(port, name):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    text = (await reader.read(-1)).decode()
    writer.close()
    return float(re.search(rf"^{name} (\S+)", text, re.M)[1])


class Gateway:
    def __init__(self, binary, upstream):
        self.port, self.admin = free(), free()
        environment = dict(
            os.environ,
            SEGMENT_GATEWAY__UPSTREAM__URL=f"http://127.0.0.1:{upstream}",
            SEGMENT_GATEWAY__STATE__DIRECTORY="",
            SEGMENT_GATEWAY__SERVER__CONNECTIONS="16384",
            SEGMENT_GATEWAY__SERVER__HEADER_TIMEOUT="5m",
            SEGMENT_GATEWAY__CALLERS__BURST="1000000",
            SEGMENT_GATEWAY__LOG__LEVEL="error",
        )
        listen = ["--listen", f"127.0.0.1:{self.port}", "--admin-listen", f"127.0.0.1:{self.admin}"]
        self.process = subprocess.Popen([binary, "serve", *listen], env=environment)

    async def ready(self):
        while True:
            try:
                return await metric(self.admin, "segment_gateway_ready")
            except OSError:
                await asyncio.sleep(0.1)

    async def report(self, what):
        at_peak = status(self.process.pid)["VmRSS"]
        await asyncio.sleep(20)
        now, stored = status(self.process.pid), await metric(self.admin, "segment_gateway_cache_bytes") / MIB
        print(
            f"{what}: highest {now['VmHWM']:.0f} MiB, at the end {at_peak:.0f} MiB, after 20 s "
            f"{now['VmRSS']:.0f} MiB, stored {stored:.0f} MiB, bound {1.3 * stored + 30:.0f} MiB",
            flush=True,
        )


async def readers(gateway, wait):
    asks = [ask(gateway.port, f"/users/u{n}", f"t{n}", wait) for n in range(READERS)]
    answers = await asyncio.gather(*asks)
    whole = sum(code == 200 and size > BODY for code, size in answers)
    codes = sorted({code for code, _ in answers})
    return f"{READERS} readers of 3.9 MiB, slow by {wait:.0f} s ({whole} whole, {codes})"


async def keys(gateway):
    numbers, codes = iter(range(KEYS)), set()

    async def read():
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=65536)
        for n in numbers:
            writer.write(
                f"GET /users/small-{n} HTTP/1.1\r\nhost: x\r\n"
                f"authorization: Bearer t{n % 1000}\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            codes.add(int(head.split(b" ", 2)[1]))
            length = re.search(rb"content-length: (\d+)", head, re.I)
            await reader.readexactly(int(length[1]))
        writer.close()

    await asyncio.gather(*(read() for _ in range(READING)))
    return f"{KEYS} keys of {SMALL // 1024} KiB ({sorted(codes)})"


async def connections(gateway, stay):
    held = []
    for n in range(CONNECTIONS):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET /users/u1 HTTP/1.1\r\nhost: x\r\n")
        held.append((reader, writer))
    if stay:
        return held, f"{CONNECTIONS} connections with half a head"
    for _, writer in held:
        writer.close()
    return f"{CONNECTIONS} connections with half a head, closed"


async def main(binary):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = await asyncio.start_server(api, "127.0.0.1", 0, backlog=1024)
    upstream = server.sockets[0].getsockname()[1]
    peaks = (
        lambda g: readers(g, 0),
        lambda g: readers(g, 5),
        keys,
        lambda g: connections(g, False),
        lambda g: connections(g, True),
    )
    for peak in peaks:
        gateway = Gateway(binary, upstream)
        await gateway.ready()
        try:
            held = await peak(gateway)
            await gateway.report(held if isinstance(held, str) else held[1])
        finally:
            gateway.process.kill()
            gateway.process.wait()


asyncio.run(main(sys.argv[1]))
