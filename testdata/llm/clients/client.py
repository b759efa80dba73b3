"""The official Python client, for tests.

A line of standard input is a question, and each line of standard output a piece of text as
it comes, what the answer was, or an error.
"""
import json
import sys

import openai


def say(**what):
    print(json.dumps(what), flush=True)


def plain(client, question):
    ids, roles, text, finish, usage = set(), 0, "", [], None
    for chunk in client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **question):
        ids.add(chunk.id)
        usage = chunk.usage or usage
        for choice in chunk.choices:
            roles += choice.delta.role is not None
            text += choice.delta.content or ""
            if choice.delta.content:
                say(piece=choice.delta.content)
            if choice.finish_reason:
                finish.append(choice.finish_reason)
    return dict(text=text, finish=finish, ids=len(ids), roles=roles, usage=usage and usage.model_dump())


def helper(client, question):
    with client.chat.completions.stream(stream_options={"include_usage": True}, **question) as stream:
        for event in stream:
            if event.type == "content.delta":
                say(piece=event.delta)
        whole = stream.get_final_completion()
    choice = whole.choices[0]
    return dict(text=choice.message.content, finish=[choice.finish_reason], ids=1, roles=1, usage=whole.usage.model_dump())


for line in sys.stdin:
    ask = json.loads(line)
    client = openai.OpenAI(base_url=ask["url"], api_key="none", timeout=120)
    question = dict(
        model=ask["model"], messages=[{"role": "user", "content": ask["message"]}],
        max_tokens=ask["max_tokens"], temperature=0, extra_body={"cache_prompt": False, **(ask.get("more") or {})},
    )
    try:
        say(answer={"plain": plain, "helper": helper}[ask["how"]](client, question))
    except Exception as error:  # whatever the client makes of it
        say(error=type(error).__name__ + ": " + str(error))
