#!/usr/bin/env python3
"""Ask migrate's servers for an answer, and carry on elsewhere when a stream breaks.

    migrate_client.py MESSAGE [HOST:PORT ...]

Servers are asked in the order given. Without any, they are taken from the file
store (DYN_FILE_KV, DYN_ENDPOINT), in random order. docs/protocol.md is the wire.
"""
import json, os, random, secrets, socket, sys, tempfile, time
from pathlib import Path

ATTEMPTS = 3
CONNECT, START, STALL = 2, 2, 15  # seconds; servers ping every 5 s, so 15 s tolerates two lost pings
MAX_LINE = 1 << 20  # bytes, without the newline
GRANT = (256 << 10) // 4  # a quarter of the credit that a stream starts with
BROKEN = "Stream ended before generation completed"
REFUSALS = ("overloaded", "draining", "misdirected", "unresumable")

class Break(Exception):
    """The stream ended before its end line: another server may carry on."""

class Refusal(Break):
    """The server did not take the request, or handed it back: no attempt."""

class Failure(Exception):
    """The request itself failed, or nobody is left to answer it."""

def listed():
    """Return the servers that the file store lists, as (address, record name)."""
    store = os.environ.get("DYN_FILE_KV") or Path(tempfile.gettempdir(), "dynamo_store_kv")
    wanted, servers = os.environ.get("DYN_ENDPOINT") or "dynamo/backend/generate", []
    for file in Path(store, "v1", "instances").glob("[!.]*"):
        try:
            record, age = json.loads(file.read_bytes()), time.time() - file.stat().st_mtime
            endpoint = "/".join((record["namespace"], record["component"], record["endpoint"]))
            name = f"{endpoint}/{record['instance_id']:x}" if record.get("incarnation") else ""
            # The owner touches its file every 3 s; one of 10 s is dead.
            if endpoint == wanted and record.get("wire", 1) == 1 and abs(age) < 10:
                servers.append((record["transport"]["ndjson"], name))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it has gone, or is not a record of ours
    return random.sample(servers, len(servers))

def stream(address, request, index):
    """Yield the items of one stream from index on. Any end but its end line raises."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host.strip("[]"), int(port)), CONNECT) as conn:
        def send(line):
            conn.sendall(json.dumps({"stream": 1, **line}).encode() + b"\n")
        send(request)
        conn.settimeout(START)  # for each read: any byte is a sign of life
        lines, started, taken = conn.makefile("rb"), False, 0
        while (raw := lines.readline(MAX_LINE + 1)).endswith(b"\n"):
            line = dict(json.loads(raw.decode()))
            event, why = line.get("event"), line.get("comment") or ["no reason given"]
            ours = line.get("stream") == 1  # and not of the connection as a whole
            if event == "error":
                raise (Failure if ours and why[0] != BROKEN else Break)("; ".join(why))
            if event in REFUSALS or ours and event and not started and event not in ("start", "end"):
                raise Refusal("; ".join((event, *why)))
            if not ours:
                continue  # a ping, or what only a newer client knows
            if event in ("start", "end"):
                if started == (event == "start") or line.get("id") != str(index):
                    raise Break(f"{event} line with id {line.get('id')}, want {index}")
                if event == "end":
                    return
                started = True
                conn.settimeout(STALL)
            elif "data" in line:
                if not started:
                    raise Break("an item before the start")
                yield line["data"]
                index += 1
            taken += len(raw)  # these are read: the server may send as many more
            if taken >= GRANT:
                send({"event": "credit", "id": str(taken)})
                taken = 0
        raise Break("line too long" if len(raw) > MAX_LINE else "connection closed before the end")

def ask(data, servers):
    """Yield each item of the answer once, from as many of servers() as it takes."""
    request_id, index, attempts, tried = secrets.token_hex(8), 0, 0, set()
    while attempts < ATTEMPTS:
        address, name = server = next((s for s in servers() if s not in tried), (None, None))
        if address is None:
            raise Failure(f"no instances left, {len(tried)} tried")
        tried.add(server)
        request = {"id": request_id, "to": name, "data": data, "from": index, "attempt": attempts + 1}
        try:
            for item in stream(address, request, index):
                yield item
                index += 1
            return
        except (OSError, ValueError, TypeError, Break) as err:
            attempts += not isinstance(err, Refusal)
            print(f"{address}: {err}; {index} items so far", file=sys.stderr)
    raise Failure(f"failed after {attempts} attempts")

if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    given = [(address, "") for address in sys.argv[2:]]
    try:
        for answer in ask(sys.argv[1], (lambda: given) if given else listed):
            print(answer if isinstance(answer, str) else json.dumps(answer), flush=True)
    except Failure as err:
        sys.exit(f"Error: {err}")
