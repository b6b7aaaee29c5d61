"""A client that nobody here wrote: gRPC by grpcio, HTTP/2 and HTTP/1.1 by httpx. It has a certificate, a key and the
certificates that it trusts, and says what becomes of each thing that it tries, a line each."""

import ssl
import sys
import time

import grpc
import httpx

what, target, certificate, key, authorities = sys.argv[1:]
HEALTH = "/grpc.health.v1.Health/"
WHOAMI = "/countersign.v1.Whoami/Whoami"


def read(path):
    with open(path, "rb") as file:
        return file.read()


def say(name, *words):
    print(name, *words, flush=True)


def channel():
    secrets = grpc.ssl_channel_credentials(read(authorities), read(key), read(certificate))
    return grpc.secure_channel(target, secrets, [("grpc.enable_retries", 0)])


def unary(channel, method, message=b"", **more):
    return channel.unary_unary(method, lambda sent: sent, lambda got: got)(message, timeout=30, **more)


def outcome(call):
    try:
        return call().hex()
    except grpc.RpcError as error:
        return f"{error.code().name} {error.details()}"


def watch(channel, **more):
    return channel.unary_stream(HEALTH + "Watch", lambda sent: sent, lambda got: got)(b"", **more)


def grpcio():
    with channel() as opened:
        say("health", outcome(lambda: unary(opened, HEALTH + "Check")))
        say("whoami", outcome(lambda: unary(opened, WHOAMI)))
        say("denied", outcome(lambda: unary(opened, "/shop.Orders/Place")))
        say("long", outcome(lambda: unary(opened, HEALTH + "Check", b"\x0a\xd0\x0f" + b"x" * 2000)))
        say("deadline", outcome(lambda: list(watch(opened, timeout=0.5))))
        stream = watch(opened)
        next(stream)
        stream.cancel()
        say("cancelled", outcome(lambda: next(stream)))


def http():
    context = ssl.create_default_context(cafile=authorities)
    context.load_cert_chain(certificate, key)
    for http2 in (True, False):
        with httpx.Client(verify=context, http2=http2, timeout=30) as client:
            for name, headers in [
                ("plain", {}),
                ("elsewhere", {"host": "evil.example"}),
                ("site", {"origin": "https://evil.example"}),
                ("upgrade", {} if http2 else {"upgrade": "websocket", "connection": "upgrade"}),
            ]:
                answer = client.get(f"https://{target}/orders", headers=headers)
                say(name, answer.http_version, answer.status_code, answer.text.strip())


def watching():
    """Stays until the connection is cut, then tries again on a new one."""
    with channel() as opened:
        stream = watch(opened)
        next(stream)
        say("watching")
        say("cut", outcome(lambda: next(stream)))
        # A call may still be given to the connection that was cut: UNAVAILABLE is what a client tries again.
        for _ in range(100):
            again = outcome(lambda: unary(opened, WHOAMI))
            if not again.startswith("UNAVAILABLE"):
                break
            time.sleep(0.1)
        say("again", again)


{"grpcio": grpcio, "httpx": http, "watch": watching}[what]()
