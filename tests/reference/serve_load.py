"""Load for `easyfirst serve`: many clients at once, some of which leave before their answer.

usage: serve_load.py [--clients 64] [--requests 2000] [--leave 0.1] [--rounds 5] [--warm-up 0.2]
                     [--program build/easyfirst] [--model data/bundled/model] [--threads 2] [--beam N]

Asks different questions about the bundled images and compares every answer with what `easyfirst ask`
prints. All clients are one thread of this process, with sockets that do not block and requests that
are made beforehand; replies are read to the end and compared after the clock has stopped.

1. Throughput: the same requests one by one (one connection, the next one after the answer) and by all
   clients, in rounds that take turns; the ratio is the median of the rounds. Each also with the CPU
   time of client and server per answer.
2. Load: streamed and not, with steps and without, some clients leave. Time of requests (p50, p99),
   and the server's memory at every twentieth of the requests.

Exit status 1 where an answer differs, a request fails, or memory grows by more than 4 MiB after the
warm-up, a part of the requests.
"""

import argparse
import base64
import json
import os
import random
import re
import selectors
import socket
import statistics
import subprocess
import sys
import time

QUESTIONS = [
    "What animal is this?", "What is at the top?", "What color is the background?", "How many things are there?",
    "Which thing is at the bottom of the picture?", "Is there an elephant?", "What is to the left?",
    "What is in the picture?",
]  # fmt: skip
PATIENCE = 120


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--leave", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one-by-one", type=int, default=100)
    parser.add_argument("--together", type=int, default=1200)
    parser.add_argument("--warm-up", type=float, default=0.2)
    parser.add_argument("--program", default="build/easyfirst")
    parser.add_argument("--model", default="data/bundled/model")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--beam", default="1")
    return parser.parse_args()


def request(body):
    text = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    return head.encode() + text


def cases(a):
    """For each question and image: the bytes of requests (plain, streamed, with steps), and the answer."""
    images = [f"data/bundled/images/{name}.jpg" for name in ("elephant", "tractor", "sailboat")]
    words = [a.program, "ask", "-q", "-m", a.model, "--beam", a.beam, *images, *QUESTIONS]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    made = []
    for line in lines:
        image, question, answer = line.split("\t")
        data = base64.b64encode(open(image, "rb").read()).decode()
        content = [
            {"type": "text", "text": question},
            {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64," + data}},
        ]
        body = {"messages": [{"role": "user", "content": content}]}
        kinds = [{}, {"stream": True}, {"stream": True, "easyfirst_steps": True}]
        made.append(([request({**body, **kind}) for kind in kinds], answer))
    return made


def answer_of(reply):
    head, _, text = reply.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        return reply.decode(errors="replace")
    if b"text/event-stream" not in head:
        return json.loads(text)["choices"][0]["message"]["content"]
    parts = []
    while text:
        size, _, text = text.partition(b"\r\n")
        parts.append(text[: int(size, 16)])
        text = text[int(size, 16) + 2 :]
    events = [json.loads(e[6:]) for e in b"".join(parts).split(b"\n\n") if e.startswith(b"data: {")]
    return "".join(c["delta"].get("content") or "" for e in events for c in e["choices"])


def complete(reply):
    head = reply.find(b"\r\n\r\n")
    if head < 0:
        return False
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)\r\n", reply[: head + 2])
    if length:
        return len(reply) >= head + 4 + int(length[1])
    return reply.endswith(b"\r\n0\r\n\r\n")


class Server:
    def __init__(self, a):
        words = [a.program, "serve", "-q", "-m", a.model, "--port", "0", "--threads", a.threads, "--beam", a.beam]
        words += ["--client-queue", "1000", "--client-connections", "1000", "--queue", "1000"]
        self.process = subprocess.Popen(words + ["--connections", "1000"], stderr=subprocess.PIPE, text=True)
        line = self.process.stderr.readline().strip()
        self.port = int(re.search(r":(\d+)$", line).group(1))

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def metrics(self):
        with self.connect() as s:
            s.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            text = b"".join(iter(lambda: s.recv(65536), b"")).decode()
        return {m[1]: float(m[2]) for m in re.finditer(r"^easyfirst_(\w+) (\S+)$", text, re.M)}

    def memory(self):
        return self.metrics()["resident_memory_bytes"] / 2**20

    def cpu(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self):
        self.process.terminate()
        self.process.communicate()
        return self.process.returncode


class Client:
    """One connection that is kept, and what is being asked on it."""

    def __init__(self, load):
        self.load, self.socket = load, None

    def ask(self):
        load = self.load
        if load.left <= 0:
            return self.close()
        load.take()
        if not self.socket:
            self.socket = load.server.connect()
            self.socket.setblocking(False)
            load.selector.register(self.socket, selectors.EVENT_READ, self)
        case = load.dice.choice(load.made)
        self.out, self.wanted = memoryview(case[0][load.kind()]), case[1]
        self.reply, self.start = bytearray(), time.monotonic()
        self.leaves_at = self.start + load.dice.choice([0, 0.3 * load.dice.random()]) if load.dice.random() < load.leave else None
        self.send()

    def send(self):
        try:
            while self.out:
                self.out = self.out[self.socket.send(self.out) :]
        except BlockingIOError:
            pass
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.out else 0)
        self.load.selector.modify(self.socket, events, self)

    def step(self, mask):
        if mask & selectors.EVENT_WRITE:
            self.send()
        if not mask & selectors.EVENT_READ:
            return
        more = self.socket.recv(1 << 20)
        self.reply += more
        if more and not complete(self.reply):
            return
        self.load.times.append(time.monotonic() - self.start)
        self.load.replies.append((self.reply, self.wanted))
        if not more:
            self.close()
        self.ask()

    def left(self, now):
        if self.socket and self.leaves_at and now > self.leaves_at:
            self.close()
            self.load.gone += 1
            self.ask()

    def close(self):
        if self.socket:
            self.load.selector.unregister(self.socket)
            self.socket.close()
            self.socket = None


class Load:
    """`count` requests of `clients` clients."""

    def __init__(self, server, made, clients, count, mixed=False, leave=0.0):
        self.server, self.made, self.mixed, self.leave = server, made, mixed, leave
        self.selector, self.dice = selectors.DefaultSelector(), random.Random(count + clients)
        self.count = self.left = count
        self.times, self.replies, self.wrong, self.gone, self.memory = [], [], [], 0, []
        self.clients = [Client(self) for _ in range(clients)]

    def kind(self):
        return self.dice.choice([0, 0, 1, 2]) if self.mixed else 0

    def take(self):
        self.left -= 1
        if self.mixed and (self.count - self.left) % max(self.count // 20, 1) == 0:
            self.check()
            self.memory.append(self.server.memory())

    def check(self):
        for reply, wanted in self.replies:
            got = answer_of(bytes(reply))
            if got != wanted:
                self.wrong.append((got, wanted))
        self.replies = []

    def run(self):
        cpu, own, start = self.server.cpu(), time.process_time(), time.monotonic()
        for client in self.clients:
            client.ask()
        while any(client.socket for client in self.clients):
            for key, mask in self.selector.select(0.01):
                if key.data.socket is key.fileobj:
                    key.data.step(mask)
            if self.leave:
                now = time.monotonic()
                for client in self.clients:
                    client.left(now)
        self.seconds = time.monotonic() - start
        done = len(self.times)
        self.speed = done / self.seconds
        self.server_ms, self.client_ms = 1e3 * (self.server.cpu() - cpu) / done, 1e3 * (time.process_time() - own) / done
        self.check()
        return self


def middle(loads, name):
    return statistics.median(getattr(load, name) for load in loads)


def throughput(a, server, made):
    alone, together = [], []
    Load(server, made, a.clients, a.together).run()  # images into the cache, threads and buffers
    for _ in range(a.rounds):
        alone.append(Load(server, made, 1, a.one_by_one).run())
        together.append(Load(server, made, a.clients, a.together).run())
    for name, loads in (("one by one", alone), (f"{a.clients} clients", together)):
        print(
            f"{name}: {middle(loads, 'speed'):.1f} answers/s; CPU per answer: server"
            f" {middle(loads, 'server_ms'):.2f} ms, client {middle(loads, 'client_ms'):.2f} ms"
        )
    ratios = [t.speed / s.speed for s, t in zip(alone, together)]
    print(f"ratio {statistics.median(ratios):.2f}: " + " ".join(f"{r:.2f}" for r in ratios), flush=True)
    return [w for load in alone + together for w in load.wrong]


def main():
    a = arguments()
    made = cases(a)
    server = Server(a)
    wrong = throughput(a, server, made) if a.rounds else []
    load, grown = None, 0
    if a.requests:
        load = Load(server, made, a.clients, a.requests, mixed=True, leave=a.leave).run()
        wrong += load.wrong
        times = sorted(load.times)
        warm = load.memory[int(a.warm_up * len(load.memory))]
        grown = max(load.memory[int(a.warm_up * len(load.memory)) :]) - warm
        print(f"{len(times)} answers, {len(load.wrong)} wrong, {load.gone} clients left early, {load.speed:.1f}/s")
        print(f"p50 {times[len(times) // 2]:.3f} s, p99 {times[len(times) * 99 // 100]:.3f} s")
        print(f"memory, MiB, every {load.count // 20} requests: " + " ".join(f"{m:.1f}" for m in load.memory))
        print(f"grown after the warm-up ({a.warm_up:.0%} of the requests): {grown:.1f} MiB")
    time.sleep(1)
    end = server.metrics()
    print({k: v for k, v in end.items() if "jobs" in k or k in ("disconnects_total", "slow_readers_total")})
    for got, wanted in wrong[:3]:
        print("wrong:", repr(got), "expected", repr(wanted))
    sys.exit(server.end() != 0 or bool(wrong) or grown > 4)


main()
