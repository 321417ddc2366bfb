#!/usr/bin/env python3
"""A Messages API on the loopback that plays a script, for tests of sessions with the real Claude CLI.

    api.py --script SCRIPT.json [--port N] [--log REQUESTS.jsonl] [--until-eof]

Prints `listening on http://127.0.0.1:PORT` and serves until it is killed (with --until-eof: until its standard input
is closed, so that it ends with the test that started it).

The script is an object:

    {"watch": ["text", …],
     "rules": [{"match": "regular expression", "unless": "path", "times": 2, "first": [MOVE, …], "turns": [MOVE, …]},
               …]}

The *ask* is the newest thing that a person said in the conversation. The first rule whose `match` is found in it
answers (no `match`: every ask; no rule: "Hello."). A rule with `unless` answers until that file exists. `times` lets a rule answer only so many asks; a repeated request
and the turns after a tool call belong to the ask they follow. `first` is used up once for each text that `match`
found, over all sessions: failures that pass. After that `turns` are played from the start in every ask, one for each
answer that the model gave to it; the last one again and again. Texts and paths may use the groups of `match` as {0},
{1}, ….

A move is one of

    {"say": "text"}                                  the answer, with `"delay": seconds` between its parts
    {"write": "path", "text": "content"}             a call of the tool Write
    {"bash": "command"}                              a call of the tool Bash
    {"tool": "Name", "input": {…}}                   a call of any tool
    {"status": 529, "message": "…", "retry_after": 1, "headers": {…}}   an error
    {"limit": seconds, "claim": "five_hour"}         a subscriber's usage limit that ends so many seconds from now
    {"hang": seconds}                                no answer for so long, then a closed connection
    {"drop": "before" | "middle"}                    the connection is reset before or within the answer

Each request is one line of the log: when, which session, the ask, the rule and the move, the model, the tools' names,
the whole conversation shortened to its texts, and which texts of `watch` the request holds. Credentials and the CLI's
own system prompt are never written.
"""

import argparse
import json
import os
import re
import socket
import struct
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
USAGE = {"input_tokens": 12, "cache_creation_input_tokens": 1000, "cache_read_input_tokens": 2000, "output_tokens": 34}


class Reset(Exception):
    """The connection is to be broken here."""


def blocks(message):
    """The content of a message as a list of blocks."""
    content = message.get("content") or []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def said(message):
    """What a person said in a message: its texts, without what the CLI slips in."""
    texts = [block.get("text", "") for block in blocks(message) if block.get("type") == "text"]
    return [text for text in texts if not text.lstrip().startswith("<system-reminder>")]


class Conversation:
    """What the script needs to know of a request."""

    def __init__(self, body):
        messages = [m for m in body.get("messages", []) if m.get("role") in ("user", "assistant")]
        self.ask, self.asks, self.turn = "", 0, 0
        for message in messages:
            if message["role"] == "assistant":
                self.turn += 1
            elif said(message):
                self.ask, self.turn = said(message)[-1], 0
                self.asks += 1
        self.shown = [{"role": m["role"], "content": [self.show(block) for block in blocks(m)]} for m in messages]
        for message in self.shown:
            message["content"] = [part for part in message["content"] if part]

    @staticmethod
    def show(block):
        kind = block.get("type")
        if kind == "text":
            text = block.get("text", "")
            return None if text.lstrip().startswith("<system-reminder>") else text[:2000]
        if kind == "tool_use":
            return {"tool_use": block.get("name"), "input": block.get("input")}
        if kind == "tool_result":
            return {"tool_result": str(block.get("content"))[:200], "is_error": bool(block.get("is_error"))}
        return {"type": kind}


class Script:
    """The rules, and how far each one is used up."""

    def __init__(self, script):
        self.watch = script.get("watch", [])
        self.rules = script.get("rules", [])
        self.lock = threading.Lock()
        self.used = {}
        self.answered = {}

    def move(self, session, conversation):
        """(number of the rule, move) for this request."""
        with self.lock:
            for number, rule in enumerate(self.rules):
                found = re.search(rule.get("match", ""), conversation.ask)
                if not found or ("unless" in rule and os.path.exists(rule["unless"])):
                    continue
                asks = self.answered.setdefault(number, set())
                asked = (session, conversation.asks, conversation.ask)
                if asked not in asks and len(asks) >= rule.get("times", len(asks) + 1):
                    continue
                asks.add(asked)
                groups = [found.group(0), *(group or "" for group in found.groups())]
                return number, fill(self.pick(number, rule, groups[0], conversation), groups)
        return None, {"say": "Hello."}

    def pick(self, number, rule, key, conversation):
        first = rule.get("first", [])
        used = self.used.get((number, key), 0)
        if used < len(first):
            self.used[number, key] = used + 1
            return first[used]
        turns = rule.get("turns") or [{"say": "Done."}]
        return turns[min(conversation.turn, len(turns) - 1)]


def fill(value, groups):
    """Puts the groups of the match into every text of a move."""
    if isinstance(value, str):
        return re.sub(r"\{(\d+)\}", lambda m: groups[int(m[1])] if int(m[1]) < len(groups) else m[0], value)
    if isinstance(value, list):
        return [fill(part, groups) for part in value]
    if isinstance(value, dict):
        return {name: fill(part, groups) for name, part in value.items()}
    return value


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "scripted"
    sys_version = ""

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(404, b"")

    def do_GET(self):
        self.fail({"status": 404, "message": "Not found"})

    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path.split("?")[0] != "/v1/messages":
            return self.fail({"status": 404, "message": "Not found"})
        body = json.loads(raw)
        conversation = Conversation(body)
        session = self.headers.get("x-claude-code-session-id")
        rule, move = self.server.script.move(session, conversation)
        self.server.record({
            "time": time.time(),
            "session": session,
            "credential": next((name for name in ("x-api-key", "authorization") if self.headers.get(name)), None),
            "model": body.get("model"),
            "stream": bool(body.get("stream")),
            "tools": [tool.get("name") for tool in body.get("tools") or []],
            "rule": rule,
            "move": move,
            "ask": conversation.ask[:20000],
            "messages": conversation.shown,
            "seen": [text for text in self.server.script.watch if text in raw.decode("utf-8", "replace")],
        })
        try:
            self.play(move, body)
        except Reset:
            self.reset()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def play(self, move, body):
        if "status" in move:
            return self.fail(move)
        if "limit" in move:
            return self.fail(usage_limit(move))
        if "hang" in move:
            time.sleep(move["hang"])
            raise Reset
        if move.get("drop") == "before":
            raise Reset
        content, reason = [], "end_turn"
        if "say" in move or "drop" in move:
            content.append({"type": "text", "text": move.get("say", "This answer is cut off in its middle.")})
        call = tool_call(move)
        if call:
            content.append({"type": "tool_use", "id": "toolu_" + uuid.uuid4().hex[:24], **call})
            reason = "tool_use"
        if body.get("stream"):
            self.stream(content, reason, body, move)
        elif "drop" in move:
            raise Reset
        else:
            self.answer(200, json.dumps(message(body, content, reason, USAGE)).encode(), {"content-type": "application/json"})

    def stream(self, content, reason, body, move):
        self.send_response(200)
        for name, value in (("content-type", "text/event-stream"), ("transfer-encoding", "chunked"), ("request-id", request_id())):
            self.send_header(name, value)
        self.end_headers()
        self.event("message_start", message=message(body, [], None, {**USAGE, "output_tokens": 1}))
        for index, block in enumerate(content):
            empty = {**block, "input": {}} if block["type"] == "tool_use" else {"type": "text", "text": ""}
            self.event("content_block_start", index=index, content_block=empty)
            for number, delta in enumerate(deltas(block)):
                if move.get("drop") == "middle" and number == 1:
                    raise Reset
                self.event("content_block_delta", index=index, delta=delta)
                time.sleep(move.get("delay", 0))
            self.event("content_block_stop", index=index)
        self.event("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage={"output_tokens": USAGE["output_tokens"]})
        self.event("message_stop")
        self.wfile.write(b"0\r\n\r\n")

    def event(self, kind, **data):
        text = f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
        self.wfile.flush()

    def fail(self, move):
        status = move["status"]
        error = {"type": move.get("type", ERROR_TYPES.get(status, "api_error")), "message": move.get("message", "scripted")}
        headers = {"content-type": "application/json", **move.get("headers", {})}
        if "retry_after" in move:
            headers["retry-after"] = str(move["retry_after"])
        self.answer(status, json.dumps({"type": "error", "error": error, "request_id": request_id()}).encode(), headers)

    def answer(self, status, body, headers=None):
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), "request-id": request_id(), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def reset(self):
        """Ends the connection without an orderly close, as a lost network does."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def finish(self):
        try:
            super().finish()
        except (OSError, ValueError):
            pass


def request_id():
    return "req_" + uuid.uuid4().hex[:24]


def message(body, content, reason, usage):
    return {"id": "msg_" + uuid.uuid4().hex[:24], "type": "message", "role": "assistant", "model": body.get("model"),
            "content": content, "stop_reason": reason, "stop_sequence": None, "usage": usage}


def tool_call(move):
    if "write" in move:
        return {"name": "Write", "input": {"file_path": move["write"], "content": move.get("text", "")}}
    if "bash" in move:
        return {"name": "Bash", "input": {"command": move["bash"], "description": "a scripted command"}}
    if "tool" in move:
        return {"name": move["tool"], "input": move.get("input", {})}
    return None


def deltas(block):
    """A block's content in pieces, at least two."""
    if block["type"] == "text":
        whole, kind, name = block["text"], "text_delta", "text"
    else:
        whole, kind, name = json.dumps(block["input"]), "input_json_delta", "partial_json"
    step = max(1, len(whole) // 6)
    return [{"type": kind, name: whole[at:at + step]} for at in range(0, len(whole), step)]


def usage_limit(move):
    """The headers by which the API tells a subscriber that a window is used up."""
    resets = str(int(time.time() + move["limit"]))
    claim = move.get("claim", "five_hour")
    headers = {"status": "rejected", "reset": resets, "representative-claim": claim}
    window = {"five_hour": "5h", "seven_day": "7d"}.get(claim)
    if window:
        headers |= {f"{window}-status": "rejected", f"{window}-reset": resets, f"{window}-utilization": "1.0"}
    headers = {f"anthropic-ratelimit-unified-{name}": value for name, value in headers.items()}
    return {"status": 429, "message": "This request would exceed your account's limit.", "headers": headers,
            "retry_after": int(move["limit"])}


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port, script, log):
        super().__init__(("127.0.0.1", port), Handler)
        self.script, self.log, self.lock = script, log, threading.Lock()

    def record(self, request):
        if self.log:
            with self.lock:
                self.log.write(json.dumps(request) + "\n")
                self.log.flush()

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def main():
    parser = argparse.ArgumentParser(description="A scripted Messages API on the loopback.")
    parser.add_argument("--script", required=True, type=argparse.FileType(encoding="utf-8"))
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=argparse.FileType("a", encoding="utf-8"))
    parser.add_argument("--until-eof", action="store_true")
    options = parser.parse_args()
    server = Server(options.port, Script(json.load(options.script)), options.log)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    if options.until_eof:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdin.buffer.read()
    else:
        server.serve_forever()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
