"""Runs the program as a user would, and reads its JSON lines."""

import concurrent.futures
import json
import os
import subprocess
import sys
import time

CHUNK = 256  # lines of text that one process answers


class Program:
    """`easyfirst` with a model and with how answers are filled. Processes run `jobs` at a time."""

    def __init__(self, path, model, threads, jobs, steps, beam):
        if not os.path.isfile(path):
            sys.exit(f"score.py: {path}: no such program; build it, or name it with --program")
        self.path, self.model, self.threads, self.jobs = path, model, threads, jobs
        self.steps, self.beam = steps, beam

    def settings(self):
        return {"steps": self.steps, "beam": self.beam, "threads": self.threads, "jobs": self.jobs}

    def command(self, name, length, *more):
        words = [self.path, name, "-m", self.model, "--json", "--quiet",
                 "--threads", str(self.threads), "--steps", str(self.steps)]
        # one length is one hypothesis, whatever the beam
        words += ["--length", str(length)] if length else ["--beam", str(self.beam)]
        return words + list(more)

    def lines(self, command, count, prompts=None):
        """The objects that the command prints, which are `count`. What it cannot answer is one of
        them, with "error"; anything else that goes wrong ends the program."""
        done = subprocess.run(command, input=prompts, capture_output=True, check=False)
        found = done.stdout.decode("utf-8").splitlines()
        if done.returncode not in (0, 1) or len(found) != count:
            told = done.stderr.decode("utf-8", "replace").strip().splitlines()
            told = told[-1] if told else "no message"
            raise RuntimeError(f"{' '.join(command[:2])} printed {len(found)} of {count} answers, "
                               f"exit status {done.returncode}: {told}")
        return [json.loads(line) for line in found]

    def ask(self, picture, questions, length=None):
        return self.lines(self.command("ask", length, "--image", picture, "--", *questions),
                          len(questions))

    def text(self, prompts, length=None):
        """Prompts as they are but for line ends, which a tokenizer takes for spaces anyway."""
        data = "".join(" ".join(prompt.splitlines()) + "\n" for prompt in prompts)
        return self.lines(self.command("text", length, "--raw", "--file", "-"), len(prompts),
                          data.encode("utf-8"))

    def map(self, name, function, jobs):
        """[function(*job)], in the order of the jobs, with a line of progress on a terminal."""
        results, shown = [], 0.0
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            futures = [pool.submit(function, *job) for job in jobs]
            try:
                for number, future in enumerate(futures, 1):
                    results.append(future.result())
                    if sys.stderr.isatty() and time.monotonic() - shown > 0.5:
                        shown = time.monotonic()
                        print(f"\r{name}: {number} of {len(jobs)} ", end="", file=sys.stderr)
            except (RuntimeError, OSError, ValueError) as error:
                for future in futures:
                    future.cancel()
                sys.exit(f"score.py: {error}")
        if sys.stderr.isatty():
            print(f"\r{name}: {len(jobs)} of {len(jobs)} ", file=sys.stderr)
        return results

    def text_all(self, name, prompts, lengths=None):
        """An answer for each prompt, in order; with `lengths`, each of its own length."""
        groups = {}
        for number in range(len(prompts)):
            groups.setdefault(lengths[number] if lengths else None, []).append(number)
        size = max(1, min(CHUNK, -(-len(prompts) // self.jobs)))
        jobs = [(numbers[at:at + size], length) for length, numbers in sorted(
            groups.items(), key=lambda item: -len(item[1])) for at in range(0, len(numbers), size)]
        answers = [None] * len(prompts)
        parts = self.map(name, lambda numbers, length: self.text(
            [prompts[n] for n in numbers], length), jobs)
        for (numbers, _), part in zip(jobs, parts):
            for number, answer in zip(numbers, part):
                answers[number] = answer
        return answers

    def token_counts(self, texts):
        """{text: tokens} by the model's own tokenizer: the program tells how many a prompt has."""
        texts = sorted(set(texts))
        quick = Program(self.path, self.model, self.threads, self.jobs, 1, 1)
        found = quick.text_all("lengths", texts, [1] * len(texts))
        return {text: max(1, one.get("prompt_tokens", 1)) for text, one in zip(texts, found)}


def answer_text(answer):
    """What was answered; nothing where the program gives a reason instead."""
    return answer.get("answer") or ""


def spread(items, limit):
    """`limit` of the items (0: all), evenly spaced."""
    if not limit or limit >= len(items):
        return list(items)
    return [items[i * len(items) // limit] for i in range(limit)]


def json_write(folder, name, value):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=1)
        file.write("\n")


def lines_write(folder, name, values):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        for value in values:
            file.write(json.dumps(value, ensure_ascii=False) + "\n")
