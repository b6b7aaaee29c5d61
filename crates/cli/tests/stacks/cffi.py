"""A client that is BoringSSL, as browsers are: curl_cffi, in HTTP/2 and HTTP/1.1, with a certificate, its key and the
authorities that it trusts. It says what becomes of each thing that it tries, a line each."""

import sys
import time

import curl_cffi
from curl_cffi import CurlHttpVersion, requests

what, target, certificate, key, authorities, version = sys.argv[1:]
VERSIONS = {"2": CurlHttpVersion.V2TLS, "1": CurlHttpVersion.V1_1}
NAMES = {3: "HTTP/2", 2: "HTTP/1.1"}


def say(name, *words):
    print(name, *words, flush=True)


def session():
    files = {"cert": (certificate, key), "verify": authorities}
    return requests.Session(**files, http_version=VERSIONS[version], impersonate="chrome", timeout=30)


def get(client, path, **more):
    try:
        answer = client.get(f"https://{target}{path}", **more)
        return f"{NAMES.get(answer.http_version, answer.http_version)} {answer.status_code} {answer.text.strip()}"
    except requests.exceptions.RequestException as error:
        return f"failed {type(error).__name__}: {error}"


def ticks(client):
    """A page that never ends, after its first piece, and the others."""
    answer = client.get(f"https://{target}/ticks", stream=True, timeout=120)
    pieces = answer.iter_content()
    say("stream", next(pieces).decode().strip())
    return answer, pieces


def rest(pieces):
    try:
        return f"ended after {sum(1 for _ in pieces)}"
    except requests.exceptions.RequestException as error:
        return f"failed {type(error).__name__}: {error}"


def settled(client):
    """A call may still be given to the connection that is gone."""
    for _ in range(100):
        said = get(client, "/orders")
        if not said.startswith("failed") and " 503 " not in said:
            break
        time.sleep(0.2)
    return said


def calls(client):
    say("unary", get(client, "/orders"))
    say("denied", get(client, "/secret"))
    say("deadline", get(client, "/ticks", timeout=1))
    answer, _ = ticks(client)
    # Its thread ends with the transfer.
    answer.close()
    say("cancelled", "CANCELLED")
    say("alive", get(client, "/orders"))


def watch(client):
    _, pieces = ticks(client)
    say("watching")
    say("cut", rest(pieces))
    say("again", settled(client))


def restart(client):
    say("before", get(client, "/orders"))
    _, pieces = ticks(client)
    say("open")
    say("stopped", rest(pieces))
    sys.stdin.readline()
    say("after", settled(client))


with session() as opened:
    say("version", f"curl_cffi {curl_cffi.__version__}, {curl_cffi.Curl().version().decode().split(' zlib')[0]}")
    {"calls": calls, "watch": watch, "restart": restart}[what](opened)
