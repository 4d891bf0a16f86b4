"""Load for `easyfirst serve`: many clients at once, some of which leave before their answer.

usage: serve_load.py [--clients 64] [--requests 2000] [--leave 0.1] [--program build/easyfirst]
                     [--model data/bundled/model] [--threads N]

Asks different questions about the bundled images, streamed and not, and compares every answer with
what `easyfirst ask` prints. Prints the time of requests (p50, p99), requests a second, the same one
by one, and the server's memory before and after. Exit status 1 where an answer differs, a request
fails, or memory grows by more than 32 MiB after the first tenth.
"""

import argparse
import base64
import http.client
import json
import random
import re
import subprocess
import sys
import threading
import time

QUESTIONS = [
    "What animal is this?", "What is at the top?", "What color is the background?", "How many things are there?",
    "Which thing is at the bottom of the picture?", "Is there an elephant?", "What is to the left?",
    "What is in the picture?",
]  # fmt: skip


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--leave", type=float, default=0.1)
    parser.add_argument("--program", default="build/easyfirst")
    parser.add_argument("--model", default="data/bundled/model")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--one-by-one", type=int, default=100)
    return parser.parse_args()


def cases(a):
    """Pairs of a body and the answer that is expected."""
    images = [f"data/bundled/images/{name}.jpg" for name in ("elephant", "tractor", "sailboat")]
    words = [a.program, "ask", "-q", "-m", a.model, *images, *QUESTIONS]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    made = []
    for line in lines:
        image, question, answer = line.split("\t")
        data = base64.b64encode(open(image, "rb").read()).decode()
        content = [
            {"type": "text", "text": question},
            {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64," + data}},
        ]
        made.append(({"messages": [{"role": "user", "content": content}]}, answer))
    return made


def connect(port):
    return http.client.HTTPConnection("127.0.0.1", port, timeout=120)


def send(connection, body):
    head = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), head)


def answer_of(response, stream):
    text = response.read().decode()
    if response.status != 200:
        return f"status {response.status}: {text}"
    if not stream:
        return json.loads(text)["choices"][0]["message"]["content"]
    events = [json.loads(e[6:]) for e in text.split("\n\n") if e.startswith("data: {")]
    return "".join(
        c["delta"].get("content") or "" for e in events for c in e.get("choices", [])
    )


def metrics(port):
    connection = connect(port)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    return {m[1]: float(m[2]) for m in re.finditer(r"^easyfirst_(\w+) (\S+)$", text, re.M)}


class Load:
    def __init__(self, a, port, made):
        self.a, self.port, self.made = a, port, made
        self.lock, self.left, self.times = threading.Lock(), a.requests, []
        self.wrong, self.gone, self.resident = [], 0, None

    def take(self):
        with self.lock:
            self.left -= 1
            if self.left == self.a.requests * 9 // 10:
                self.resident = metrics(self.port)["resident_memory_bytes"]
            return self.left >= 0

    def leave(self, body, dice):
        connection = connect(self.port)
        send(connection, body)
        if dice.random() < 0.5:
            time.sleep(dice.random() * 0.3)
        connection.close()
        self.gone += 1

    def client(self, number):
        dice, connection = random.Random(number), connect(self.port)
        while self.take():
            body, wanted = dice.choice(self.made)
            stream = dice.random() < 0.5
            body = {**body, "stream": stream, "easyfirst_steps": stream and dice.random() < 0.5}
            if dice.random() < self.a.leave:
                self.leave(body, dice)
                continue
            start = time.monotonic()
            try:
                send(connection, body)
                got = answer_of(connection.getresponse(), stream)
            except (OSError, http.client.HTTPException) as error:
                got, connection = repr(error), connect(self.port)
            self.times.append(time.monotonic() - start)
            if got != wanted:
                self.wrong.append((got, wanted))

    def run(self):
        threads = [threading.Thread(target=self.client, args=(i,)) for i in range(self.a.clients)]
        start = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.monotonic() - start


def one_by_one(a, port, made):
    dice, connection, start = random.Random(1), connect(port), time.monotonic()
    for _ in range(a.one_by_one):
        send(connection, dice.choice(made)[0])
        answer_of(connection.getresponse(), False)
    return a.one_by_one / (time.monotonic() - start)


def main():
    a = arguments()
    made = cases(a)
    words = [a.program, "serve", "-q", "-m", a.model, "--port", "0", "--threads", a.threads]
    words += ["--client-queue", "1000", "--client-connections", "1000", "--queue", "1000"]
    server = subprocess.Popen(words + ["--connections", "1000"], stderr=subprocess.PIPE, text=True)
    port = int(re.search(r":(\d+)$", server.stderr.readline().strip()).group(1))
    alone = one_by_one(a, port, made)
    load = Load(a, port, made)
    seconds = load.run()
    time.sleep(1)
    end = metrics(port)
    server.terminate()
    server.communicate()
    times = sorted(load.times)
    grown = end["resident_memory_bytes"] - load.resident
    print(f"{len(times)} answers, {len(load.wrong)} wrong, {load.gone} clients left early")
    print(f"p50 {times[len(times) // 2]:.3f} s, p99 {times[len(times) * 99 // 100]:.3f} s")
    print(f"{len(times) / seconds:.1f} answers/s with {a.clients} clients, {alone:.1f}/s one by one")
    print(f"memory {load.resident / 2**20:.1f} MiB after a tenth, {end['resident_memory_bytes'] / 2**20:.1f} MiB at the end")
    print({k: v for k, v in end.items() if "jobs" in k or k in ("disconnects_total", "slow_readers_total")})
    for got, wanted in load.wrong[:3]:
        print("wrong:", repr(got), "expected", repr(wanted))
    sys.exit(bool(load.wrong) or grown > 32 << 20 or server.returncode != 0)


main()
