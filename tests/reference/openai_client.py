"""The official client of OpenAI's API (PyPI openai) against `easyfirst serve`.

usage: openai_client.py [PROGRAM [MODEL [IMAGE]]]

Starts the server on a free port, and asks about an image, streamed and not: both answers must be
what `easyfirst ask` prints. Also completions, samples, infilling, choices, models, and errors as the client's
own exceptions. In a virtual environment outside of the tree: pip install openai
"""

import base64
import re
import subprocess
import sys

import openai

PROGRAM = sys.argv[1] if len(sys.argv) > 1 else "build/easyfirst"
MODEL = sys.argv[2] if len(sys.argv) > 2 else "data/bundled/model"
IMAGE = sys.argv[3] if len(sys.argv) > 3 else "data/bundled/images/elephant.jpg"
QUESTION = "What animal is this?"


def expect(name, got, wanted):
    print(("ok" if got == wanted else "NOT OK") + f" {name}: {got!r}")
    if got != wanted:
        sys.exit(f"expected {wanted!r}")


def printed(*words):
    return subprocess.run(
        [PROGRAM, *words], capture_output=True, text=True, check=True
    ).stdout.rstrip("\n")


def refused(kind, status, ask):
    try:
        ask()
    except kind as error:
        expect(f"{kind.__name__}", error.status_code, status)
    else:
        sys.exit(f"no {kind.__name__}")


def check(client):
    model = client.models.list().data[0].id
    expect("the model by its name", client.models.retrieve(model).id, model)
    data = base64.b64encode(open(IMAGE, "rb").read()).decode()
    url = {"url": "data:image/jpeg;base64," + data}
    content = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": url}]
    messages = [{"role": "user", "content": content}]
    wanted = printed("ask", "-q", "-m", MODEL, IMAGE, QUESTION)
    chat = client.chat.completions
    whole = chat.create(model=model, messages=messages)
    expect("an image's answer", whole.choices[0].message.content, wanted)
    expect("why it ends", whole.choices[0].finish_reason, "stop")
    text, steps, usage = "", 0, None
    with chat.create(
        model=model,
        messages=messages,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"easyfirst_steps": True},
    ) as stream:
        for chunk in stream:
            own = (chunk.model_extra or {}).get("easyfirst", {})
            steps += "tokens" in own
            usage = chunk.usage or usage
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
    expect("the same, streamed", text, wanted)
    expect("its usage", usage.total_tokens, whole.usage.total_tokens)
    expect("its steps", steps, whole.model_extra["easyfirst"]["hypotheses"][0]["steps"])
    prompt = "What is an elephant?"
    completion = client.completions.create(model=model, prompt=prompt)
    expect("a prompt's answer", completion.choices[0].text, printed("text", "-q", "--raw", "-m", MODEL, prompt))
    several = chat.create(model=model, messages=messages, n=3, temperature=1, seed=5)
    expect("samples", len(several.choices), 3)
    filled = client.completions.create(
        model=model, prompt="The animal is ", suffix=" elephant.", extra_body={"easyfirst": {"length": 1}}
    )
    print("   infilled:", repr(filled.choices[0].text))
    given = ["A dog.", "An elephant.", "A tractor."]
    line = printed("ask", "-q", "-m", MODEL, "--one-of", ",".join(given), IMAGE, QUESTION)
    for extra in ({"structured_outputs": {"choice": given}}, {"guided_choice": given}):
        chosen = chat.create(model=model, messages=messages, extra_body=extra)
        expect("a choice", chosen.choices[0].message.content, line)
        expect("its choices", [c["text"] for c in chosen.model_extra["easyfirst"]["choices"]], given)
    refused(openai.NotFoundError, 404, lambda: chat.create(model="gpt-4", messages=messages))
    refused(openai.BadRequestError, 400, lambda: chat.create(model=model, messages=[]))
    refused(
        openai.BadRequestError,
        400,
        lambda: chat.create(model=model, messages=messages, stop=["."]),
    )
    wrong = client.with_options(api_key="wrong")
    refused(openai.AuthenticationError, 401, lambda: wrong.models.list())


def main():
    words = [PROGRAM, "serve", "-m", MODEL, "--port", "0", "--api-key", "a-key-for-this-test"]
    server = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        port = int(re.search(r":(\d+)$", server.stderr.readline().strip()).group(1))
        check(openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="a-key-for-this-test"))
    finally:
        server.terminate()
        server.communicate()
    expect("the server's exit status", server.returncode, 0)


main()
