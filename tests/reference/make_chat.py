#!/usr/bin/env python3
"""Makes tests/golden/tokenizers/chat.json: the chat templates of models in Jinja, as their files have them,
and the texts that jinja2 makes of conversations.

    ENV/bin/python tests/reference/make_chat.py      (Python 3.11, jinja2 3.1)
"""

import json

import jinja2

LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
CHATML = (
    "{% for message in messages %}DEFAULT{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' "
    "+ '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DEFAULT = (
    "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant."
    "<|im_end|>\n' }}{% endif %}"
)
LLAMA31 = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- set date_string = \"26 Jul 2024\" %}{%- endif %}"
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system_message = \"\" %}{%- endif %}"
    "{{- \"<|start_header_id|>system<|end_header_id|>\\n\\n\" }}{{- \"Cutting Knowledge Date: December 2023\\n\" }}"
    "{{- \"Today Date: \" + date_string + \"\\n\\n\" }}{{- system_message }}{{- \"<|eot_id|>\" }}"
    "{%- for message in messages %}{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ "
    "message['content'] | trim + '<|eot_id|>' }}{%- endfor %}{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = "
    "messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}{% if loop.index0 == 0 and system_message != false %}{% set content = "
    "'<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}{% else %}{% set content = "
    "message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + "
    "' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
TEMPLATES = {
    "llada": ("<|startoftext|>", LLAMA3),
    "dream": ("", CHATML.replace("DEFAULT", DEFAULT)),
    "chatml": ("", CHATML.replace("DEFAULT", "")),
    "llama-3": ("<|begin_of_text|>", LLAMA3),
    "llama-3.1": ("<|begin_of_text|>", LLAMA31),
    "llama-2": ("<s>", LLAMA2),
}
SYSTEM, HELLO, ANSWER, AGAIN = ("system", " Be brief. "), ("user", "Hello\u00a0"), ("assistant", "\nHi! "), ("user", " é?\n\nYes")
CHATS = [[HELLO], [SYSTEM, HELLO], [HELLO, ANSWER], [SYSTEM, HELLO, ANSWER, AGAIN], [HELLO, ANSWER, AGAIN, ANSWER]]

cases = []
for name, (begin, template) in TEMPLATES.items():
    for chat in CHATS:
        messages = [{"role": role, "content": content} for role, content in chat]
        is_open = chat[-1][0] == "user"
        text = jinja2.Template(template).render(
            messages=messages, bos_token=begin, eos_token="</s>", add_generation_prompt=is_open
        )
        cases.append({"name": name, "begin": begin, "template": template, "messages": messages, "open": is_open, "text": text})
with open("tests/golden/tokenizers/chat.json", "w", encoding="utf-8") as f:
    json.dump(cases, f, indent=0)
